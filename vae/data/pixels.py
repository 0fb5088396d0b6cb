"""From integer pixels to what a model sees: x in [0, 1], binarised or dequantised as the config says.

Images rest in memory as uint8 rows, on the device that trains; a batch becomes floating point only when it is
used. Held-out images are binarised or dequantised once, with the evaluation seed, so that every trial of a
sweep is scored on the same numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vae import seeds

if TYPE_CHECKING:
    from vae.data import DataConfig
    from vae.data.dataset import Split
    from vae.train_config import TrainConfig


class Pixels:
    """The examples of one split as rows, ready to be drawn by index.

    ``dynamic`` binarisation and dequantisation draw anew at every call of :meth:`batch` from torch's global
    generator; everything else is a fixed function of the split and ``eval_seed``.
    """

    def __init__(
        self,
        split: Split,
        data: DataConfig,
        *,
        levels: int,
        eval_seed: int,
        device: torch.device,
        held_out: bool,
    ) -> None:
        """Rows of ``split``; ``held_out`` fixes what training would draw anew."""
        rows = split.images.flatten(1)
        self.divisor = float(levels)
        self.draw: str | None = None
        binarisation, dequantise = data.binarisation, data.dequantise
        if binarisation == "static" or (binarisation == "dynamic" and held_out):
            uniform = seeds.generator(eval_seed, "binarisation", split.name)
            rows = _binarise_in_place(rows.clone(), levels, uniform)
            self.divisor = 1.0
        elif binarisation == "dynamic":
            self.draw = "binary"
        elif dequantise and held_out:
            uniform = seeds.generator(eval_seed, "dequantisation", split.name)
            rows = (rows + torch.rand(rows.shape, generator=uniform)) / (levels + 1.0)
            self.divisor = 1.0
        elif dequantise:
            self.draw = "dequantised"
            self.divisor = levels + 1.0
        self.rows = rows.to(device)
        self.labels = split.labels.to(device)

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, index: Tensor | slice) -> Tensor:
        """x [B, D], float32 in [0, 1], of the examples at ``index``."""
        # index_select copies whole rows: several times faster on a CPU than indexing with a tensor.
        rows = self.rows[index] if isinstance(index, slice) else self.rows.index_select(0, index)
        x = rows.float()
        if self.draw == "dequantised":
            x += torch.rand_like(x)
        if self.divisor != 1.0:
            x /= self.divisor
        if self.draw == "binary":
            x = (torch.rand_like(x) < x).float()  # a third of torch.bernoulli's time on a CPU
        return x

    def mean(self) -> Tensor:
        """Mean of x over examples, [D], in float64 while summing."""
        total = self.rows.sum(0, dtype=torch.float64)
        half_step = 0.5 if self.draw == "dequantised" else 0.0
        return ((total / len(self.rows) + half_step) / self.divisor).float()


def pixels_of(split: Split, config: TrainConfig, levels: int, device: torch.device, *, held_out: bool) -> Pixels:
    """The rows of ``split`` as ``config`` wants them seen."""
    return Pixels(split, config.data, levels=levels, eval_seed=config.eval.seed, device=device, held_out=held_out)


def _binarise_in_place(rows: Tensor, levels: int, uniform: torch.Generator) -> Tensor:
    """Each pixel v becomes 1 with probability v / levels. In blocks: the draws need not fit in memory at once."""
    for block in rows.split(4096):
        block.copy_(torch.rand(block.shape, generator=uniform) * levels < block)
    return rows

"""The conversion of integer pixels to a model's input: x in [0, 1], binarised or dequantised by the config.

Images stay in memory as uint8 rows on the training device. A batch becomes floating point only when it is used. Held-out
images are binarised or dequantised once, with the evaluation seed, so that every trial of a sweep is scored on the same
numbers.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from vae import seeds
from vae.data import splits
from vae.data.dataset import BLOCK, DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vae.data import DataConfig
    from vae.data.dataset import Split
    from vae.data.splits import SubsetRule
    from vae.train_config import TrainConfig


class Pixels:
    """The examples of one split as rows that can be indexed.

    ``dynamic`` binarisation and dequantisation of training examples draw from torch's global generator at every call of
    :meth:`batch`. Everything else is a fixed function of the split and ``eval_seed``. From a memory-mapped split only the
    rows of a batch are read. Its fixed draws are repeated, row by row, whenever a row is read.
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
        rule: SubsetRule = "permuted",
    ) -> None:
        """Make the rows of ``split``. With ``held_out`` all draws are fixed. ``rule`` is for :meth:`subset`.

        Raises:
            DataError: Binarisation or dequantisation of real values.

        """
        self.rule: SubsetRule = rule
        self.split_seed: int = getattr(data, "split_seed", 0)  # an external set may lack it
        self.divisor = float(levels or 1)
        self.draw: str | None = None
        self.split = split
        self.device = device
        self.labels = split.labels.to(device)
        self.rows: Tensor | None = None  # the rows in memory; None if the set is memory-mapped
        binarisation, dequantise = data.binarisation, data.dequantise
        if levels == 0 and (binarisation != "none" or dequantise):
            what = "data.dequantise" if dequantise else f"data.binarisation {binarisation!r}"
            raise DataError(f"{what} needs whole numbers, and data {data.kind!r} has real values; use 'none'")
        fixed = held_out or binarisation == "static"
        if binarisation in {"static", "dynamic"}:
            self.draw = "binary"
        elif dequantise:
            self.draw = "dequantised"
            self.divisor = levels + 1.0
        stream = {"binary": "binarisation", "dequantised": "dequantisation", None: ""}[self.draw]
        self.uniform: _FixedUniform | None = None
        if split.index is not None:
            if fixed and self.draw is not None:
                self.uniform = _FixedUniform(eval_seed, stream, split)
            return
        rows = split.images.flatten(1)
        if fixed and self.draw == "binary":
            rows = _binarise_in_place(rows.clone(), levels, seeds.generator(eval_seed, stream, split.name))
            self.draw, self.divisor = None, 1.0
        elif fixed and self.draw == "dequantised":
            uniform = seeds.generator(eval_seed, stream, split.name)
            rows = (rows + torch.rand(rows.shape, generator=uniform)) / (levels + 1.0)
            self.draw, self.divisor = None, 1.0
        self.rows = rows.to(device)

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, index: Tensor | slice, generators: Sequence[torch.Generator] | None = None) -> Tensor:
        """Return x [B, D] of the examples at ``index``, float32: in [0, 1], or real values without scaling.

        ``generators`` replace torch's global generator. Each one draws for an equal share of the rows.
        """
        if self.rows is None:
            x = self.split.rows(index if isinstance(index, slice) else index.cpu()).flatten(1).float().to(self.device)
        elif isinstance(index, slice):
            x = self.rows[index].float()
        else:
            # index_select copies whole rows, which is several times faster on a CPU than indexing with a tensor.
            x = self.rows.index_select(0, index).float()
        if self.draw is None:
            return x if self.divisor == 1.0 else x.div_(self.divisor)
        if self.uniform is not None:
            uniform = self.uniform.of(index).to(self.device)
        elif generators is None:
            uniform = torch.rand_like(x)
        else:
            uniform = torch.empty_like(x)
            for share, generator in zip(uniform.chunk(len(generators)), generators, strict=True):
                share.uniform_(generator=generator)
        if self.draw == "dequantised":
            return x.add_(uniform).div_(self.divisor)
        return (uniform < x.div_(self.divisor)).float()  # takes a third of the time of torch.bernoulli on a CPU

    def subset(self, count: int) -> Tensor:
        """Return the indices of a subset of ``count`` examples, int64 on the device; see ``splits.subset``."""
        chosen = splits.subset(len(self), count, rule=self.rule, seed=self.split_seed, split=self.split.name)
        return chosen.to(self.device)

    def mean(self) -> Tensor:
        """Return the mean of x over examples, [D]. The sum is in float64."""
        total = torch.zeros(math.prod(self.split.shape), dtype=torch.float64)
        if self.rows is not None:
            total = self.rows.sum(0, dtype=torch.float64)
        else:
            for start in range(0, len(self), BLOCK):
                rows = self.split.rows(slice(start, min(start + BLOCK, len(self))))
                total += rows.flatten(1).sum(0, dtype=torch.float64)
        half_step = 0.5 if self.draw == "dequantised" else 0.0
        return ((total / len(self) + half_step) / self.divisor).float()


class _FixedUniform:
    """Uniform draws for the rows of a memory-mapped set. They are the same each time and are not stored.

    Philox is a counter-based generator (Salmon et al. 2011). The draws of row i start at counter i · 2¹⁹², so they do not
    depend on other rows.
    """

    def __init__(self, seed: int, stream: str, split: Split) -> None:
        self.key = seeds.derive(seed, stream, split.name)
        self.size = len(split)
        self.dimensions = math.prod(split.shape)

    def of(self, index: Tensor | slice) -> Tensor:
        """Return the draws for the rows at ``index``, [B, D], float32 in [0, 1)."""
        rows = range(self.size)[index] if isinstance(index, slice) else index.tolist()
        drawn = np.empty((len(rows), self.dimensions), np.float32)
        for row, out in zip(rows, drawn, strict=True):
            philox = np.random.Philox(key=self.key, counter=[0, 0, 0, row])
            np.random.Generator(philox).random(out=out, dtype=np.float32)
        return torch.from_numpy(drawn)


def pixels_of(split: Split, config: TrainConfig, levels: int, device: torch.device, *, held_out: bool) -> Pixels:
    """Return the examples of ``split`` in the form that ``config`` asks for."""
    return Pixels(
        split,
        config.data,
        levels=levels,
        eval_seed=config.eval.seed,
        device=device,
        held_out=held_out,
        rule=config.eval.subset,
    )


def _binarise_in_place(rows: Tensor, levels: int, uniform: torch.Generator) -> Tensor:
    """Set each pixel v to 1 with probability v / levels, else to 0. Blocks keep the draws small in memory."""
    for block in rows.split(4096):
        block.copy_(torch.rand(block.shape, generator=uniform) * levels < block)
    return rows

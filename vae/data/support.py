"""Whether the data are what the likelihood is a likelihood of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from vae.data.dataset import BLOCK, DataError

if TYPE_CHECKING:
    from vae.data.dataset import Split
    from vae.train_config import TrainConfig


def check_support(config: TrainConfig, split: Split, levels: int) -> None:
    """Refuse values of ``split`` that ``config``'s likelihood gives no probability to. Integers need no look.

    Raises:
        DataError: naming the set, the example, the dimension, the value, the rule and the remedy.

    """
    if levels > 0 or config.likelihood.support != "unit":
        return
    for start in range(0, len(split), BLOCK):
        rows = split.rows(slice(start, min(start + BLOCK, len(split)))).flatten(1)
        outside = ((rows < 0) | (rows > 1)).nonzero()
        if len(outside):
            example, dimension = outside[0].tolist()
            value = rows[example, dimension].item()
            raise DataError(
                f"data {config.data.kind!r}, {split.name} example {start + example}, dimension {dimension}: {value:g} is outside "
                f"[0, 1], the support of likelihood.kind {config.likelihood.kind!r}; set data.scaling to 'unit', or use "
                "'gaussian' or 'laplace'"
            )


def check_finite(images: torch.Tensor, source: str) -> None:
    """Refuse NaN and infinities, naming row and column.

    Raises:
        DataError: for the first of them.

    """
    if not images.is_floating_point():
        return
    for start in range(0, len(images), BLOCK):
        rows = images[start : start + BLOCK].flatten(1)
        bad = (~rows.isfinite()).nonzero()
        if len(bad):
            row, column = bad[0].tolist()
            value = rows[row, column].item()
            raise DataError(
                f"{source}: row {start + row}, column {column} is {value}; remove or fill what is not a number"
            )

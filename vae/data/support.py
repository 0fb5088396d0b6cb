"""The check that the data lie in the support of the likelihood."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from vae.data.dataset import BLOCK, DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

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
                f"[0, 1], the support of likelihood.kind {config.likelihood.kind!r}; {_remedy(config)}"
            )


def check_test_support(config: TrainConfig, levels: int, load: Callable[[], Split]) -> None:
    """Refuse, before training, a test part that could not be scored after it.

    It is a check of validity and no look: the test part is compared with the bounds of the likelihood's support, and
    nothing of its values is shown. ``load`` gives the test part; it is called only where the likelihood has bounds and
    the data are real values.

    Raises:
        DataError: a value of the test part has no probability.

    """
    if levels > 0 or config.likelihood.support != "unit":
        return
    try:
        test = load()
    except DataError:
        return  # there is no test part, and whoever asks for it is told so
    for start in range(0, len(test), BLOCK):
        rows = test.rows(slice(start, min(start + BLOCK, len(test))))
        low, high = torch.aminmax(rows)
        if low < 0 or high > 1:
            raise DataError(
                f"data {config.data.kind!r}: the test part has values outside [0, 1], the support of likelihood.kind "
                f"{config.likelihood.kind!r}, and could not be scored after training; {_remedy(config)}"
            )


def _remedy(config: TrainConfig) -> str:
    """Return what to change where values leave [0, 1]."""
    if getattr(config.data, "scaling", None) == "unit":
        return (
            "data.scaling 'unit' takes its range from the training part alone: use 'standardise' with likelihood.kind "
            "'gaussian' or 'laplace', or bring the file into [0, 1] by a range that you know"
        )
    return "set data.scaling to 'unit', or use 'gaussian' or 'laplace'"


def check_finite(values: Tensor, source: str, columns: Sequence[str] | None = None) -> None:
    """Refuse what is NaN or infinite as float32, naming row, from 0, and column: by name, or by place from 0.

    Raises:
        DataError: for the first of them.

    """
    if not values.is_floating_point():
        return
    for start in range(0, len(values), BLOCK):
        rows = values[start : start + BLOCK].flatten(1)
        bad = (~rows.float().isfinite()).nonzero()
        if len(bad):
            row, place = bad[0].tolist()
            column = place if columns is None else repr(columns[place])
            raise DataError(
                f"{source}: row {start + row}, column {column} is {rows[row, place].item()}; "
                "values must be finite float32: fill or remove it"
            )


def check_whole(values: Tensor, levels: int, source: str) -> None:
    """Refuse what is no whole number in 0..``levels``, naming row and column, each from 0.

    Raises:
        DataError: for the first of them.

    """
    for start in range(0, len(values), BLOCK):
        rows = values[start : start + BLOCK].flatten(1)
        # What is right, so that NaN is not. uint8 and bool are whole and not negative.
        right = rows <= levels
        if rows.dtype not in {torch.uint8, torch.bool}:
            right &= (rows >= 0) & (rows == rows.floor())
        bad = (~right).nonzero()
        if len(bad):
            row, place = bad[0].tolist()
            raise DataError(
                f"{source}: row {start + row}, column {place} is {rows[row, place].item():g}, but data.levels {levels} "
                f"says whole numbers 0..{levels}; change data.levels, or leave it out for real values"
            )

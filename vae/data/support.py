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
    """Refuse values of ``split`` outside the support of ``config``'s likelihood. Integers need no check.

    Raises:
        DataError: A value is outside. The message names set, example, dimension, value, rule and remedy.

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
    """Refuse, before training, a test part that could not be scored after training.

    This is a check of validity and not an evaluation on the test part: its values are compared with the bounds of the
    likelihood's support, and none of them is shown. ``load`` returns the test part. It is called only if the likelihood has
    bounds and the data are real values.

    Raises:
        DataError: A value of the test part is outside the support.

    """
    if levels > 0 or config.likelihood.support != "unit":
        return
    try:
        test = load()
    except DataError:
        return  # There is no test part. A later request for it is refused with the reason.
    for start in range(0, len(test), BLOCK):
        rows = test.rows(slice(start, min(start + BLOCK, len(test))))
        low, high = torch.aminmax(rows)
        if low < 0 or high > 1:
            raise DataError(
                f"data {config.data.kind!r}: the test part has values outside [0, 1], the support of likelihood.kind "
                f"{config.likelihood.kind!r}, and could not be scored after training; {_remedy(config)}"
            )


def _remedy(config: TrainConfig) -> str:
    """Return the remedy for values outside [0, 1], as the end of a message."""
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
    """Refuse values that are not whole numbers in 0..``levels``.

    Raises:
        DataError: For the first such value. The message names its row and column, each counted from 0.

    """
    for start in range(0, len(values), BLOCK):
        rows = values[start : start + BLOCK].flatten(1)
        # The valid values are selected, because NaN fails every comparison. uint8 and bool are whole and not negative.
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

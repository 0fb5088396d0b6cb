"""Labels: the numbering of the values in a file, their names, and the refusal of values that are no labels."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import torch

from vae.config import nearest
from vae.data.dataset import Array, DataError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import Tensor

_LARGEST_NUMBER = 100_000  # a larger whole number is an identifier, not a label
_FEW = 100  # number of labels that may have one example each
_MANY = 10_000  # number of labels above which each needs several examples
_SEVERAL = 10
_SHOWN = 8
# The texts that pandas and numpy write for a missing value.
_MISSING = ("", "nan", "NaN", "<NA>", "NaT")
_DIGITS = re.compile(r"([0-9]+)")


def natural(text: str) -> tuple[tuple[int, str], ...]:
    """Return the sort key of the natural order. Runs of digits compare as numbers, so "2" stands before "10"."""
    parts = _DIGITS.split(text)
    # A number compares by its length without leading zeros, then by its digits, because int() refuses thousands of digits.
    runs = [(len(part.lstrip("0")), part.lstrip("0")) if i % 2 else (0, part) for i, part in enumerate(parts)]
    return (*runs, (0, text))


def number_labels(
    labels: Sequence[Array], paths: Sequence[Path], *, reading: int
) -> tuple[list[Tensor], int, tuple[str, ...]]:
    """Return the int64 labels of each file, the number of classes, and the classes' names.

    The values that occur in any of the files are numbered from 0 in natural order. The names are empty if each name is its
    number. ``reading`` 1 is the rule of version 0.1.0: whole numbers stay as they are, and names are numbered in the order
    of their text.

    Raises:
        DataError: A label is missing, or the values are no classes.

    """
    checked = [_whole_or_text(array, path, reading) for array, path in zip(labels, paths, strict=True)]
    whole = all(array.dtype.kind == "i" for array in checked)
    if reading == 1:
        if whole:
            return [torch.from_numpy(array) for array in checked], int(max(array.max() for array in checked)) + 1, ()
        names = sorted({str(value) for array in checked for value in np.unique(array)})
        return _numbers(checked, names), len(names), tuple(names)
    found = {value for array in checked for value in np.unique(array).tolist()}
    names = [str(value) for value in sorted(found)] if whole else sorted(map(str, found), key=natural)
    check_classes(len(names), sum(map(len, checked)), f"{paths[0]}: data.labels")
    return _numbers(checked, names), len(names), unless_numbers(names)


def unless_numbers(names: Sequence[str]) -> tuple[str, ...]:
    """Return ``names``, or an empty tuple if each name is its number."""
    return () if list(names) == [str(i) for i in range(len(names))] else tuple(names)


def check_classes(classes: int, examples: int, what: str) -> None:
    """Refuse labels that are values of another kind, such as identifiers.

    Raises:
        DataError: Most labels have one example, or there are more than 10,000 with few examples each.

    """
    if (classes > _FEW and 2 * classes > examples) or (classes > _MANY and _SEVERAL * classes > examples):
        raise DataError(
            f"{what} has {classes:,} different values in {examples:,} examples: these are no classes; name what has few "
            "values, or leave the labels out"
        )


def label_name(names: Sequence[str], number: int) -> str:
    """Return the name of label ``number``, which is its number if the labels have no names."""
    return names[number] if number < len(names) else str(number)


def label_number(label: int | str, names: Sequence[str], count: int, option: str) -> int:
    """Return the number of ``label``, which is one of ``names``, or a number if the labels have no names.

    The case of letters is ignored if exactly one label then fits. If no name is a number, a number is also accepted as a
    position in ``names``.

    Raises:
        DataError: There is no such label. The message begins with ``option``.

    """
    known = list(names) or [str(number) for number in range(count)]
    text = str(label)
    if text in known:
        return known.index(text)
    alike = [number for number, name in enumerate(known) if name.casefold() == text.casefold()]
    if len(alike) == 1:
        return alike[0]
    numeric = any(name.isdigit() for name in known)
    if not numeric and text.isascii() and text.isdigit() and len(text) < _SHOWN and int(text) < len(known):
        return int(text)
    if not known:
        raise DataError(f"{option} {text!r}: the data have no labels; leave it out")
    if not names:
        raise DataError(f"{option} must be 0 to {count - 1}, got {text}")
    shown = f"it must be one of {listed(known)}" if len(known) <= _SHOWN else nearest(text, known)
    raise DataError(f"{option} {text[:80]!r} is no label of the data: {shown}")


def listed(names: Sequence[str]) -> str:
    """Return the first ``names`` in quotes, and the number of the others."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(repr(name[:80]) for name in names[:_SHOWN]) + more


def _numbers(labels: Sequence[Array], names: list[str]) -> list[Tensor]:
    place = {name: index for index, name in enumerate(names)}
    result = []
    for array in labels:
        values, inverse = np.unique(array, return_inverse=True)
        numbers = np.array([place[str(value)] for value in values], dtype=np.int64)
        result.append(torch.from_numpy(numbers[inverse.reshape(-1)]))
    return result


def _whole_or_text(labels: Array, path: Path, reading: int) -> Array:
    """Return ``labels`` as int64 from 0, or as texts."""
    if labels.dtype.kind in "OSU":
        try:
            texts = labels.astype(np.str_)
        except UnicodeDecodeError:
            raise DataError(f"{path}: labels must be names or whole numbers, and some are no text") from None
        missing = np.flatnonzero(np.isin(np.char.strip(texts), _MISSING))
        if reading > 1 and len(missing):
            raise DataError(
                f"{path}: row {missing[0]} has no label (got {str(texts[missing[0]])!r}); fill or remove it"
            )
        return texts
    if labels.dtype.kind == "b" and reading > 1:
        return np.where(labels, "true", "false")
    if labels.dtype.kind not in "fiub":
        raise DataError(f"{path}: labels must be names or whole numbers, got {labels.dtype}")
    numbers = labels.astype(np.float64)
    wrong = np.flatnonzero(~((numbers >= 0) & (numbers == np.floor(numbers)) & (numbers < _LARGEST_NUMBER)))
    if len(wrong):
        raise DataError(
            f"{path}: labels must be names or whole numbers 0..{_LARGEST_NUMBER - 1}, got {labels[wrong[0]]} "
            f"in row {wrong[0]}"
        )
    return labels.astype(np.int64)

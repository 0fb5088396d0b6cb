"""The tolerance of each figure of a row when the same config is trained again on another machine.

The rule is three standard deviations over seeds where the row is the mean of several, else 1e-3 relative. It holds for
the sums over a split as they are. Other figures need a scale of their own: a difference of two large numbers is judged
by these, a latent dimension by the largest one, and a count may move by one.
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any, TypeGuard

from research.ledger.events import REPLICATES, STANDARD_ERROR

if TYPE_CHECKING:
    from collections.abc import Mapping

RELATIVE_TOLERANCE = 1e-3  # where the sweep measured no spread over seeds
SPREADS = 3.0  # where it did
# Nothing is judged more closely than this part of the row's largest sum: a collapsed model's KL is a rounding error.
_FLOOR = 1e-6
_SUMS = ("val/elbo", "val/reconstruction", "val/kl", "train/loss", "train/reconstruction", "train/kl")
_COUNTS = ("val/active_units",)  # a unit may be on either side of its threshold
_COUNT = 0.05  # of a count, and 1 at least
# Shares of samples: one of them may fall on the other side of a class border.
_SHARES = ("val/samples_as_asked", "val/classifier_accuracy")
_SHARE = 0.02
_LOOSE = 20.0  # times the rule for figures that are no sum over a split and that nothing is chosen by


def agrees(name: str, row: Mapping[str, Any], again: Mapping[str, Any], ranked_by: str) -> bool:
    """Return True if ``again`` has what ``row`` has under ``name``, within tolerance. ``ranked_by``: the sweep's metric."""
    before, after = row.get(name), again.get(name)
    if before == after and type(before) is type(after):
        return True
    if _is_setting(name.removesuffix(REPLICATES)):
        return bool(before == after)
    if isinstance(before, list) and isinstance(after, list):
        if len(before) != len(after) or not all(map(_is_number, [*before, *after])):
            return before == after
        allowed = tolerance(row, name, ranked_by)
        return all(abs(a - b) <= allowed for a, b in zip(before, after, strict=True))
    if not _is_number(before) or not _is_number(after):
        return bool(before == after)
    return bool(abs(after - before) <= tolerance(row, name, ranked_by))


def tolerance(row: Mapping[str, Any], name: str, ranked_by: str = "") -> float:
    """Return how far the figure ``name`` of ``row`` may be off, in its own units."""
    of = name.removesuffix(REPLICATES).removesuffix(STANDARD_ERROR)
    sizes = [abs(float(value)) for value in _numbers(row.get(name))]
    floor = _FLOOR * max([1.0, *(abs(float(row[total])) for total in _SUMS if _is_number(row.get(total)))])
    spread = _spread(row, of)
    if of in _COUNTS:
        return max(1.0, _COUNT * max(sizes, default=0.0), spread)
    if of in _SHARES:
        return max(_SHARE, spread)
    if name != of:  # the values of the replicates, or the error of their mean
        return max(spread, tolerance(row, of, ranked_by))
    if spread > 0:
        return spread
    size = max([*sizes, _scale(of, row)], default=0.0)
    return max(floor, RELATIVE_TOLERANCE * size * (1.0 if of == ranked_by or _is_strict(of) else _LOOSE))


def _spread(row: Mapping[str, Any], name: str) -> float:
    """Return three standard deviations of the figure over the row's seeds; 0 where there is one seed."""
    each = row.get(name + REPLICATES)
    if isinstance(each, list) and len(each) > 1 and all(map(_is_number, each)):
        return SPREADS * float(statistics.stdev(each))
    return 0.0


def _scale(name: str, row: Mapping[str, Any]) -> float:
    """Return the size of the numbers that ``name`` is a difference of; 0 for a figure that is no such thing."""
    base, change, _ = name.partition("_change_from_half_k")
    if change and _is_number(row.get(base)):
        return abs(float(row[base]))
    if name.startswith("train/") and not _is_strict(name) and _is_number(row.get("train/loss")):
        return abs(float(row["train/loss"])) / _LOOSE  # a penalty, which may be next to nothing
    return 0.0


def _is_strict(name: str) -> bool:
    """Return True for sums and means over a whole split, and for what is set and not measured."""
    if name in _SUMS or name == "train/learning_rate":
        return True
    return name.startswith(("val/", "test/")) and not name.endswith(("_standard_error", "_change_from_half_k"))


def _is_setting(name: str) -> bool:
    """Return True for whole numbers that follow from the config and the data alone."""
    if name.endswith("_change_from_half_k"):
        return False
    return name in {"epoch", "step", "model/parameters", "replicate"} or name.endswith(("_k", "_images"))


def _numbers(value: object) -> list[float]:
    values = value if isinstance(value, list) else [value]
    return [each for each in values if _is_number(each)]


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)

"""The verdict on rows trained again: exact, within tolerance, or not; and what tolerance is."""

from __future__ import annotations

import statistics

import pytest

from research.reproduce import compare, judge, tolerance

ROW = {
    "epoch": 1,
    "val/elbo": -100.0,
    "val/kl": 20.0,
    "val/reconstruction": 80.0,
    "measure": "m",
    "time/train_seconds": 1.0,
}
EACH = [-99.0, -100.0, -101.0]


def verdict(before, after):
    """Of one row."""
    return judge([before], [after], compare([before], [after]))


def test_times_are_not_compared():
    """Two runs are never equally fast."""
    assert verdict(ROW, ROW | {"time/train_seconds": 9.0}) == "reproduced exactly"


@pytest.mark.parametrize(
    ("elbo", "expected"),
    [
        (-100.0, "reproduced exactly"),
        (-100.0 - 1e-12, "reproduced within tolerance"),
        (-100.09, "reproduced within tolerance"),
        (-100.11, "did not reproduce"),
        (None, "did not reproduce"),
    ],
)
def test_a_thousandth_where_no_spread_was_measured(elbo, expected):
    """Relative to what was recorded."""
    assert verdict(ROW, ROW | {"val/elbo": elbo}) == expected


@pytest.mark.parametrize(("off", "expected"), [(2.9, "reproduced within tolerance"), (3.1, "did not reproduce")])
def test_three_spreads_where_seeds_were_replicated(off, expected):
    """The standard deviation over the record's own replicates decides."""
    replicated = ROW | {"val/elbo_replicates": EACH}
    assert tolerance(replicated, "val/elbo") == 3 * statistics.stdev(EACH) == 3.0
    assert verdict(replicated, replicated | {"val/elbo": -100.0 - off}) == expected


def test_another_measure_or_a_missing_row_never_passes():
    """Numbers of other data are other numbers."""
    assert verdict(ROW, ROW | {"measure": "n"}) == "did not reproduce"
    assert judge([ROW, ROW], [ROW], []) == "did not reproduce"

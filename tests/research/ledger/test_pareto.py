"""Fronts, ranks and hypervolumes against brute force, and which trials have a place on a front."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from research.ledger import pareto
from research.ledger.settings import Constraint, Metric
from tests.support.synthetic import failed, new_ledger, row, trial

RATE = Metric(name="val/kl", direction="minimize")
DISTORTION = Metric(name="val/reconstruction", direction="minimize")
UNITS = Metric(name="val/active_units", direction="maximize")
SMALL = st.integers(0, 6).map(float)


def beats(a, b, signs):
    """Whether ``a`` is at least as good everywhere and better somewhere (signs: 1 where larger is better)."""
    pairs = [(s * x, s * y) for x, y, s in zip(a, b, signs, strict=True)]
    return all(x >= y for x, y in pairs) and any(x > y for x, y in pairs)


@given(st.lists(st.tuples(SMALL, SMALL, SMALL), min_size=1, max_size=12))
def test_ranks_are_the_layers_that_peeling_leaves(points):
    """Rank 1 is what nothing beats; without those, rank 2; and so on."""
    signs = (-1, -1, 1)
    expected, left, rank = {}, dict(enumerate(points)), 1
    while left:
        front = [i for i, p in left.items() if not any(beats(q, p, signs) for q in left.values())]
        expected |= dict.fromkeys(front, rank)
        left = {i: p for i, p in left.items() if i not in front}
        rank += 1
    assert pareto.ranks(points, [RATE, DISTORTION, UNITS]) == [expected[i] for i in range(len(points))]


@given(st.lists(st.tuples(SMALL, SMALL), min_size=1, max_size=10))
def test_the_hypervolume_counts_unit_cells(points):
    """On whole numbers the dominated area is the number of unit squares below some point, counted one by one."""
    cells = [
        (x, y)
        for x, y in itertools.product(range(7), range(7))
        if any(p[0] <= x and p[1] >= y + 1 for p in points)  # minimise the first, maximise the second
    ]
    assert pareto.hypervolume(points, [RATE, UNITS], (7.0, 0.0)) == pytest.approx(len(cells))


def test_the_reference_is_the_worst_of_each():
    """So the volume is the front's own, and the front's ends count for nothing by themselves."""
    points = [(1.0, 9.0), (2.0, 5.0), (4.0, 7.0)]
    assert pareto.reference_point(points, [RATE, UNITS]) == (4.0, 5.0)


def figures(number, epoch, rate, distortion, decision):
    """A row at this point of the rate-distortion plane."""
    reported = row(number, epoch, -(rate + distortion), decision)
    reported.metrics.update({"val/kl": rate, "val/reconstruction": distortion})
    return reported


def test_the_front_is_of_completed_feasible_trials(tmp_path):
    """A pruned trial's point is of another budget; one that breaks a constraint has no place; failures have none."""
    limit = Constraint(metric="val/kl", relation="<=", bound=50.0)
    ledger = new_ledger(tmp_path, objectives=(DISTORTION, RATE), constraints=(limit,))
    for number in range(6):
        ledger.append(trial(number))
    ledger.append(figures(0, 3, 10.0, 90.0, "complete"))
    ledger.append(figures(1, 3, 20.0, 70.0, "complete"))
    ledger.append(figures(2, 3, 21.0, 75.0, "complete"))  # beaten by 1
    ledger.append(figures(3, 1, 1.0, 1.0, "pruned"))
    ledger.append(figures(4, 3, 60.0, 10.0, "complete"))  # breaks the constraint
    ledger.append(failed(5))

    assert ledger.pareto_ranks() == {0: 1, 1: 1, 2: 2}
    assert [view.number for view in ledger.front()] == [1, 0]
    assert [view.number for view in ledger.ranked()] == [1, 0, 2, 3, 4]
    assert ledger.point(ledger.trials[1]) == (70.0, 20.0)


def test_one_objective_has_no_front(tmp_path):
    """Ranks are for several objectives."""
    ledger = new_ledger(tmp_path)
    ledger.append(trial(0))
    ledger.append(row(0, 3, -1.0, "complete"))
    assert ledger.pareto_ranks() == {}
    assert ledger.front() == []

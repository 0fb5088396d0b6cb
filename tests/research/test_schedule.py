"""Early stopping: the rungs, the cut, who is seen by whom, and one durable event for each result."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic import new_ledger, row, trial

from research.ledger import Ledger
from research.schedule import LedgerScheduler, keeps_going, value_at
from research.settings import Asha, Metric, NoScheduler, rungs

ELBO = Metric()


@pytest.mark.parametrize(
    ("scheduler", "epochs", "expected"),
    [
        (Asha(grace=1, reduction=3), 27, [1, 3, 9]),
        (Asha(grace=2, reduction=2), 17, [2, 4, 8, 16]),
        (Asha(grace=5), 5, []),
        (NoScheduler(), 27, []),
    ],
)
def test_rungs(scheduler, epochs, expected):
    """``grace × reduction^i``, short of the full budget."""
    assert rungs(scheduler, epochs) == expected


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=40, unique=True), st.integers(2, 5))
def test_the_cut_keeps_the_best_share(values, reduction):
    """Judged against all, between one and about a ``1/reduction`` of them goes on, and always the best."""
    scheduler = Asha(reduction=reduction, min_population=2)
    going = [v for i, v in enumerate(values) if keeps_going(scheduler, ELBO, v, values[:i] + values[i + 1 :])]

    assert max(values) in going
    assert 1 <= len(going) <= np.ceil(len(values) / reduction) + 1
    assert min(going) >= max(set(values) - set(going), default=-np.inf)


def test_the_cut_turns_with_the_direction():
    """What is minimised is cut from above."""
    scheduler = Asha(min_population=2)
    smaller = Metric(name="val/nll_iwae", direction="minimize")

    assert keeps_going(scheduler, smaller, 1.0, [2.0, 3.0, 4.0])
    assert not keeps_going(scheduler, smaller, 4.0, [1.0, 2.0, 3.0])


def test_a_small_population_stops_nothing():
    """The second trial at a rung is not stopped because the first was better."""
    assert keeps_going(Asha(min_population=5), ELBO, -900.0, [-1.0, -2.0, -3.0])
    assert not keeps_going(Asha(min_population=5), ELBO, -900.0, [-1.0, -2.0, -3.0, -4.0])


def test_a_trial_is_judged_by_its_best_so_far(tmp_path):
    """A bad last epoch does not undo a good one; a trial that never came to the rung is not counted there."""
    ledger = new_ledger(tmp_path / "s")
    ledger.append(trial(0))
    for epoch, elbo in ((1, -50.0), (2, -40.0), (3, -45.0)):
        ledger.append(row(0, epoch, elbo))

    assert value_at(ledger.trials[0], ELBO, 3) == -40.0
    assert value_at(ledger.trials[0], ELBO, 4) is None


@pytest.fixture
def report(tmp_path):
    """Give a scheduler a result for trial n; its answer. The ledger is at ``.ledger``."""
    ledger = new_ledger(tmp_path / "s", epochs=9, scheduler=Asha(grace=1, min_population=3))
    scheduler = LedgerScheduler(
        ledger,
        number_of=lambda one: one.number,
        visible_to=lambda _: ledger.trials.values(),
        on_row=lambda _: None,
        on_error=lambda _: None,
    )

    def send(number, epoch, elbo, diverged=None):
        if number not in ledger.trials:
            ledger.append(trial(number))
        text = json.dumps(
            {
                "metrics": {"epoch": epoch, "val/elbo": elbo},
                "epochs": 9,
                "attempt": 0,
                "diverged": diverged,
                "checkpoint": None,
                "checkpoint_sha256": None,
                "pictures": {},
                "worker": {},
            }
        )
        return scheduler.on_trial_result(None, SimpleNamespace(number=number), {"report": text})

    send.ledger = ledger
    return send


def test_each_result_is_one_event_with_its_decision(report):
    """Written, durable, before Tune hears the answer: continue, pruned at a rung, complete at the budget."""
    assert [report(0, 1, -10.0), report(1, 1, -11.0), report(2, 1, -99.0)] == ["CONTINUE", "CONTINUE", "STOP"]
    assert report(0, 9, -5.0) == "STOP"

    again = Ledger.open(report.ledger.directory)
    assert [view.status for view in again.trials.values()] == ["COMPLETE", "RUNNING", "PRUNED"]
    assert "epoch 1" in again.trials[2].reason


def test_an_epoch_reported_again_gets_its_first_decision(report):
    """After a lost worker epochs come twice: nothing is written, the stored decision is returned."""
    report(0, 1, -10.0)
    report(1, 1, -11.0)
    report(2, 1, -99.0)
    events = len(report.ledger)

    assert report(2, 1, -99.0) == "STOP"
    assert report(0, 1, -10.0) == "CONTINUE"
    assert len(report.ledger) == events


def test_what_is_not_finite_fails_at_once(report):
    """A NaN is never compared, never continues, and never stays RUNNING."""
    assert report(0, 1, None) == "STOP"
    assert report(1, 1, None, diverged="loss is nan at step 7") == "STOP"

    assert [view.status for view in report.ledger.trials.values()] == ["FAIL", "FAIL"]
    assert "not finite" in report.ledger.trials[0].reason
    assert report.ledger.trials[1].fail_kind == "diverged"
    assert "step 7" in report.ledger.trials[1].reason

"""Early stopping: the rungs, the cut, who is seen by whom, and one durable event for each result."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from research.ledger.log import Ledger
from research.ledger.settings import Asha, Hyperband, MedianRule, Metric, NoScheduler, rungs
from research.on_ray.tune_scheduler import LedgerScheduler, keeps_going, value_at
from tests.support.synthetic import MEASURE, new_ledger, row, trial

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
        numbers_of=lambda one: [one.number],
        visible_below=lambda _: len(ledger.trials),
        on_row=lambda _: None,
        on_error=lambda _: None,
    )

    def send(number, epoch, elbo, diverged=None):
        if number not in ledger.trials:
            ledger.append(trial(number))
        text = json.dumps(
            {
                "trial": number,
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


@pytest.mark.parametrize(("reduction", "grace", "epochs"), [(3, 1, 27), (2, 1, 16), (3, 2, 54), (4, 1, 4)])
def test_hyperband_s_brackets(reduction, grace, epochs):
    """Each bracket is a halving that begins one rung later; trials are dealt in Hyperband's proportions."""
    scheduler = Hyperband(grace=grace, reduction=reduction)
    ladder = rungs(Asha(grace=grace, reduction=reduction), epochs)
    last = len(ladder)
    sizes = [math.ceil((last + 1) / (s + 1) * reduction**s) for s in range(last, -1, -1)]
    dealt = [scheduler.bracket(epochs, number) for number in range(4000)]
    for bracket, size in enumerate(sizes):
        share = size / sum(sizes)
        assert abs(dealt.count(bracket) / 4000 - share) < 4 * math.sqrt(share * (1 - share) / 4000)
    for number in range(20):
        assert rungs(scheduler, epochs, number) == ladder[dealt[number] :]
    assert rungs(scheduler, epochs) == ladder


def reported(number, epoch, value, epochs=9):
    """What a worker sends."""
    metrics = dict(row(number, epoch, value).metrics)
    report = {"trial": number, "metrics": metrics, "epochs": epochs, "attempt": 0, "diverged": None, "checkpoint": None}
    return {"report": json.dumps(report | {"checkpoint_sha256": None, "pictures": {}, "worker": {}})}


def decisions(ledger, curves):
    """Feed curves one after the other, each until it is stopped; the number of epochs of each."""
    scheduler = LedgerScheduler(
        ledger,
        numbers_of=lambda tune_trial: [tune_trial.number],
        visible_below=lambda _: len(ledger.trials),
        on_row=lambda _: None,
        on_error=lambda _: None,
    )
    for number, curve in enumerate(curves):
        ledger.append(trial(number))
        for epoch, value in enumerate(curve, start=1):
            if (
                scheduler.on_trial_result(None, SimpleNamespace(number=number), reported(number, epoch, value))
                == "STOP"
            ):
                break
    return [len(view.rows) for view in ledger.trials.values()]


def test_the_median_rule_stops_what_is_worse_than_half(tmp_path):
    """At every second epoch the best so far is held against the median of the others' running means."""
    ledger = new_ledger(tmp_path, scheduler=MedianRule(grace=2, min_population=4))
    rising = [[level + epoch for epoch in range(9)] for level in (-10.0, -20.0, -30.0)]
    # Running means of the three at epoch 2: −9.5, −19.5, −29.5, the median −19.5.
    assert decisions(ledger, [*rising, [-20.0, -19.6, 0.0], [-20.0, -19.4, *[-19.4] * 7]]) == [9, 9, 9, 2, 4]
    assert "worse than the median of 3" in str(ledger.trials[3].reason)


def test_hyperband_compares_within_a_bracket(tmp_path):
    """A trial of the last bracket is never stopped; one of the first is judged against its own bracket alone."""
    scheduler = Hyperband(grace=1, reduction=3, min_population=2)
    ledger = new_ledger(tmp_path, scheduler=scheduler)
    curves = [[-1.0 - number] * 9 for number in range(40)]  # each worse than all before
    lengths = decisions(ledger, curves)
    seen = set()
    for number, length in enumerate(lengths):
        bracket = scheduler.bracket(9, number)
        ladder = rungs(scheduler, 9, number)
        expected = 9 if bracket not in seen or not ladder else ladder[0]
        assert length == expected, number
        seen.add(bracket)


def test_every_objective_must_be_finite(tmp_path):
    """A row without one of the objectives has no point on the front: the trial fails, by name."""
    both = (Metric(), Metric(name="val/kl", direction="minimize"))
    ledger = new_ledger(tmp_path, objectives=both, scheduler=NoScheduler())
    result = reported(0, 1, -5.0)
    values = json.loads(result["report"])
    values["metrics"]["val/kl"] = None
    ledger.append(trial(0))
    scheduler = LedgerScheduler(
        ledger, numbers_of=lambda _: [0], visible_below=lambda _: 0, on_row=lambda _: None, on_error=lambda _: None
    )
    assert scheduler.on_trial_result(None, SimpleNamespace(), {"report": json.dumps(values)}) == "STOP"
    assert ledger.trials[0].reason == "val/kl is not finite at epoch 1"


def test_who_came_too_early_to_be_judged_is_judged_later(tmp_path):
    """Three trials pass the first rung before five have been there; once they have, each is judged by its value there."""
    ledger = new_ledger(tmp_path, scheduler=Asha(grace=1, reduction=3, min_population=5))
    scheduler = LedgerScheduler(
        ledger,
        numbers_of=lambda tune_trial: [tune_trial.number],
        visible_below=lambda _: len(ledger.trials),
        on_row=lambda _: None,
        on_error=lambda _: None,
    )

    def report(number, epoch, value):
        return scheduler.on_trial_result(None, SimpleNamespace(number=number), reported(number, epoch, value))

    for number in range(6):
        ledger.append(trial(number))
    assert [report(number, 1, float(-number)) for number in range(3)] == ["CONTINUE"] * 3
    assert report(1, 2, 50.0) == "CONTINUE"  # still fewer than five
    assert [report(number, 1, -9.0) for number in (3, 4)] == ["CONTINUE", "STOP"]
    # At the rung: 0, −1, −2, −9, −9; the best third is 0 and −1. What came after the rung does not count.
    assert report(2, 2, 100.0) == "STOP"
    assert ledger.trials[2].reason == "not in the best 1/3 of 5 at epoch 1, judged at epoch 2"
    assert report(1, 3, -50.0) == "CONTINUE"
    assert ledger.trials[1].rows[3].judged == [1]
    assert report(0, 2, -50.0) == "CONTINUE"
    assert report(3, 2, 50.0) == "STOP"
    assert ledger.trials[4].final.judged == [1]
    # Judged once: what comes to the rung later changes nothing for those that passed it.
    assert report(5, 1, 7.0) == "CONTINUE"
    assert report(1, 4, -50.0) == "CONTINUE"
    assert ledger.trials[1].rows[4].judged == []


def test_a_stack_goes_on_until_its_last_member_has_ended(tmp_path):
    """A member's end is written down at once, and Tune's trial stops with the last of them."""
    ledger = new_ledger(tmp_path, scheduler=NoScheduler())
    scheduler = LedgerScheduler(
        ledger, numbers_of=lambda _: [0, 1], visible_below=lambda _: 0, on_row=lambda _: None, on_error=lambda _: None
    )
    for number in (0, 1):
        ledger.append(trial(number))
    answers = []
    for number, epoch in ((0, 1), (1, 1), (0, 2), (1, 2)):
        answers.append(scheduler.on_trial_result(None, SimpleNamespace(), reported(number, epoch, -1.0, epochs=2)))
    assert answers == ["CONTINUE", "CONTINUE", "CONTINUE", "STOP"]
    assert ledger.trials[0].status == "COMPLETE"


def test_scheduler_a_row_that_does_not_compare_ends_its_trial_by_name(tmp_path):
    """At the first such row the trial has failed as incomparable, whatever its figures; the others are judged as before."""
    shared = {"measure": MEASURE, "eval.seed": 0, "eval.samples": 1, "bound": "diagonal"}
    ledger = new_ledger(tmp_path / "s", epochs=9, scheduler=Asha(grace=1, min_population=2), comparison=shared)
    scheduler = LedgerScheduler(
        ledger,
        numbers_of=lambda one: [one.number],
        visible_below=lambda _: len(ledger.trials),
        on_row=lambda _: None,
        on_error=lambda _: None,
    )

    def send(number, epoch, value, **other):
        report = json.loads(reported(number, epoch, value)["report"]) | {"comparison": shared | other}
        return scheduler.on_trial_result(None, SimpleNamespace(number=number), {"report": json.dumps(report)})

    for number in range(3):
        ledger.append(trial(number))

    assert send(0, 1, -30.0, **{"eval.seed": 4}) == "STOP"
    assert send(1, 1, -50.0) == "CONTINUE"
    assert send(2, 1, -60.0) == "STOP"
    assert send(1, 2, -40.0, measure="p(x|label)") == "STOP"
    again = Ledger.open(ledger.directory)
    assert [view.fail_kind for view in again.trials.values()] == ["incomparable", "incomparable", None]
    assert "eval.seed is 4, not 0" in again.trials[0].reason
    assert "not in the best 1/3 of 2" in again.trials[2].reason
    assert again.trials[0].rows[1].comparison == shared | {"eval.seed": 4}
    assert [view.number for view in again.ranked()] == [2]

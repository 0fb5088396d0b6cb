"""Early stopping: the rungs, the cut, who is seen by whom, and one durable event for each result."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from research.ledger.log import Ledger
from research.ledger.settings import Asha, Hyperband, MedianRule, Metric, NoScheduler, RandomSearch, Resources, rungs
from research.search.early_stopping import keeps_going, value_at
from research.search.spaces import Space
from tests.support.by_hand import DriverByHand
from tests.support.synthetic import MEASURE, new_ledger, row, trial
from vae.networks import Mlp
from vae.train_config import TrainConfig

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


def driver_of(directory, count=0, **settings):
    """Return a driver of a new sweep of 50 trials with 9 epochs, of which the first ``count`` are running."""
    resources = Resources(concurrent=50)
    ledger = new_ledger(directory, trials=50, epochs=9, sampler=RandomSearch(), resources=resources, **settings)

    def space(trial):
        return TrainConfig(network=Mlp(hidden=(8,)), latent_size=trial.suggest_int("latent_size", 2, 10**6), epochs=9)

    driver = DriverByHand(ledger, Space(function=space, source=ledger.settings.space))
    for number in range(count):
        assert driver.ask(f"worker {number}") == [number]
    return driver


@pytest.fixture
def report(tmp_path):
    """Report a row of trial n to a driver; return the decision. The ledger is at ``.ledger``."""
    driver = driver_of(tmp_path / "s", 3, scheduler=Asha(grace=1, min_population=3))

    def send(number, epoch, elbo, diverged=None):
        return driver.report(row(number, epoch, elbo), epochs=9, diverged=diverged)

    send.ledger = driver.ledger
    return send


def test_each_result_is_one_event_with_its_decision(report):
    """Written, durable, before the engine gets the answer: continue, pruned at a rung, complete at the budget."""
    assert [report(0, 1, -10.0), report(1, 1, -11.0), report(2, 1, -99.0)] == ["continue", "continue", "pruned"]
    assert report(0, 9, -5.0) == "complete"

    again = Ledger.open(report.ledger.directory)
    assert [view.status for view in again.trials.values()] == ["COMPLETE", "RUNNING", "PRUNED"]
    assert "epoch 1" in again.trials[2].reason


def test_an_epoch_reported_again_gets_its_first_decision(report):
    """After a lost worker epochs come twice: nothing is written, the stored decision is returned."""
    report(0, 1, -10.0)
    report(1, 1, -11.0)
    report(2, 1, -99.0)
    events = len(report.ledger)

    assert report(2, 1, -99.0) == "pruned"
    assert report(0, 1, -10.0) == "continue"
    assert len(report.ledger) == events


def test_what_is_not_finite_fails_at_once(report):
    """A NaN is never compared, never continues, and never stays RUNNING."""
    assert report(0, 1, None) == "fail"
    assert report(1, 1, None, diverged="loss is nan at step 7") == "fail"

    assert [view.status for view in report.ledger.trials.values()] == ["FAIL", "FAIL", "RUNNING"]
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


def decisions(driver, curves):
    """Report curves one after the other, each until it is stopped; return the number of epochs of each."""
    for number, curve in enumerate(curves):
        assert driver.ask(f"worker {number}") == [number]
        for epoch, value in enumerate(curve, start=1):
            if driver.report(row(number, epoch, value), epochs=9) != "continue":
                break
    return [len(view.rows) for view in driver.ledger.trials.values()]


def test_the_median_rule_stops_what_is_worse_than_half(tmp_path):
    """At every second epoch the best so far is held against the median of the others' running means."""
    driver = driver_of(tmp_path / "s", scheduler=MedianRule(grace=2, min_population=4))
    rising = [[level + epoch for epoch in range(9)] for level in (-10.0, -20.0, -30.0)]
    # Running means of the three at epoch 2: −9.5, −19.5, −29.5, the median −19.5.
    assert decisions(driver, [*rising, [-20.0, -19.6, 0.0], [-20.0, -19.4, *[-19.4] * 7]]) == [9, 9, 9, 2, 4]
    assert "worse than the median of 3" in str(driver.ledger.trials[3].reason)


def test_hyperband_compares_within_a_bracket(tmp_path):
    """A trial of the last bracket is never stopped; one of the first is judged against its own bracket alone."""
    scheduler = Hyperband(grace=1, reduction=3, min_population=2)
    driver = driver_of(tmp_path / "s", scheduler=scheduler)
    curves = [[-1.0 - number] * 9 for number in range(40)]  # each worse than all before
    lengths = decisions(driver, curves)
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
    driver = driver_of(tmp_path / "s", 1, objectives=both, scheduler=NoScheduler())
    result = row(0, 1, -5.0)
    result.metrics["val/kl"] = None
    assert driver.report(result, epochs=9) == "fail"
    assert driver.ledger.trials[0].reason == "val/kl is not finite at epoch 1"


def test_who_came_too_early_to_be_judged_is_judged_later(tmp_path):
    """Three trials pass the first rung before five have been there; once they have, each is judged by its value there."""
    driver = driver_of(tmp_path / "s", 6, scheduler=Asha(grace=1, reduction=3, min_population=5))
    ledger = driver.ledger

    def report(number, epoch, value):
        return driver.report(row(number, epoch, value), epochs=9)

    assert [report(number, 1, float(-number)) for number in range(3)] == ["continue"] * 3
    assert report(1, 2, 50.0) == "continue"  # still fewer than five
    assert [report(number, 1, -9.0) for number in (3, 4)] == ["continue", "pruned"]
    # At the rung: 0, −1, −2, −9, −9; the best third is 0 and −1. What came after the rung does not count.
    assert report(2, 2, 100.0) == "pruned"
    assert ledger.trials[2].reason == "not in the best 1/3 of 5 at epoch 1, judged at epoch 2"
    assert report(1, 3, -50.0) == "continue"
    assert ledger.trials[1].rows[3].judged == [1]
    assert report(0, 2, -50.0) == "continue"
    assert report(3, 2, 50.0) == "pruned"
    assert ledger.trials[4].final.judged == [1]
    # Judged once: what comes to the rung later changes nothing for those that passed it.
    assert report(5, 1, 7.0) == "continue"
    assert report(1, 4, -50.0) == "continue"
    assert ledger.trials[1].rows[4].judged == []


def test_scheduler_a_row_that_does_not_compare_ends_its_trial_by_name(tmp_path):
    """At the first such row the trial has failed as incomparable, whatever its figures; the others are judged as before."""
    shared = {"measure": MEASURE, "eval.seed": 0, "eval.samples": 1, "bound": "diagonal"}
    driver = driver_of(tmp_path / "s", 3, scheduler=Asha(grace=1, min_population=2), comparison=shared)
    ledger = driver.ledger

    def send(number, epoch, value, **other):
        return driver.report(row(number, epoch, value, comparison=shared | other), epochs=9)

    assert send(0, 1, -30.0, **{"eval.seed": 4}) == "fail"
    assert send(1, 1, -50.0) == "continue"
    assert send(2, 1, -60.0) == "pruned"
    assert send(1, 2, -40.0, measure="p(x|label)") == "fail"
    again = Ledger.open(ledger.directory)
    assert [view.fail_kind for view in again.trials.values()] == ["incomparable", "incomparable", None]
    assert "eval.seed is 4, not 0" in again.trials[0].reason
    assert "not in the best 1/3 of 2" in again.trials[2].reason
    assert again.trials[0].rows[1].comparison == shared | {"eval.seed": 4}
    assert [view.number for view in again.ranked()] == [2]

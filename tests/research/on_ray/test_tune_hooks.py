"""Tune's hooks hand everything to the driver, and give Tune the driver's answers."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from ray import cloudpickle
from ray.exceptions import RayActorError, RayTaskError
from ray.tune.search import Searcher

from research.ledger.settings import NoScheduler, RandomSearch, Resources
from research.on_ray.tune_hooks import TuneScheduler, TuneSearcher
from research.search.spaces import Space
from research.worker.messages import ASSIGNMENTS, reports_to_json
from tests.support.by_hand import DriverByHand, report_of
from tests.support.synthetic import new_ledger, row
from vae.networks import Mlp
from vae.train_config import TrainConfig


def space(trial):
    """Many configs of one shape."""
    return TrainConfig(network=Mlp(hidden=(8,)), batch_size=trial.suggest_int("batch_size", 8, 10_000), epochs=2)


@pytest.fixture
def begin(tmp_path):
    """Begin a sweep; return its driver's searcher and scheduler for Tune."""

    def begin(**settings):
        ledger = new_ledger(
            tmp_path / "s",
            epochs=2,
            sampler=RandomSearch(),
            scheduler=NoScheduler(),
            **({"trials": 2, "resources": Resources(concurrent=1)} | settings),
        )
        driver = DriverByHand(ledger, Space(function=space, source=ledger.settings.space)).driver
        searcher = TuneSearcher(driver)
        return searcher, TuneScheduler(driver, searcher)

    return begin


def result(epoch, *numbers):
    """What Tune hands on from a worker: the rows of the trials ``numbers``."""
    return {"reports": reports_to_json([report_of(row(number, epoch, -1.0), epochs=2) for number in numbers])}


def tune_trial(searcher, trial_id, **more):
    """Tune's own object for a trial that ``searcher`` has suggested. Its actor keeps the answers to its reports."""
    answers: list[dict[int, int]] = []
    actor = SimpleNamespace(take_answer=SimpleNamespace(remote=answers.append), answers=answers)
    state = SimpleNamespace(ray_actor=actor)
    return SimpleNamespace(
        trial_id=trial_id, config={"trials": searcher.numbers[trial_id]}, temporary_state=state, **more
    )


def test_searcher_suggests_assignments_then_waits_then_finishes(begin):
    """An assignment while a slot is free, None while none is, FINISHED after the last trial."""
    searcher, scheduler = begin()
    for number, trial_id in enumerate(("a", "b")):
        config = searcher.suggest(trial_id)
        assert config["trials"] == [number]
        assert [task.trial for task in ASSIGNMENTS.validate_json(config["assignments"])] == [number]
        assert searcher.suggest("too many") is None
        assert scheduler.on_trial_result(None, tune_trial(searcher, trial_id), result(1, number)) == "CONTINUE"
        assert scheduler.on_trial_result(None, tune_trial(searcher, trial_id), result(2, number)) == "STOP"
        searcher.on_trial_complete(trial_id)
    assert searcher.suggest("c") == Searcher.FINISHED


def test_scheduler_stops_a_stack_when_its_last_member_has_ended(begin):
    """The worker is told which members go on and until when, and Tune's trial stops with the last of them."""
    searcher, scheduler = begin(stack=2)
    assert searcher.suggest("a")["trials"] == [0, 1]
    trial = tune_trial(searcher, "a")
    results = [result(1, 0, 1), result(2, 0), result(2, 1)]
    assert [scheduler.on_trial_result(None, trial, each) for each in results] == ["CONTINUE", "CONTINUE", "STOP"]
    assert trial.temporary_state.ray_actor.answers == [{0: 2, 1: 2}, {}]
    assert scheduler.driver.ledger.trials[0].status == "COMPLETE"


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (RayTaskError("f", "", ValueError("no such layer")), "FAIL", "ValueError: no such layer"),
        (ValueError("Tune's own"), "FAIL", "ValueError: Tune's own"),
        (RayActorError(), "RUNNING", None),
        (None, "FAIL", "the worker failed without an exception"),
    ],
    ids=["raised", "Tune's", "died", "unreadable"],
)
def test_scheduler_error_becomes_the_trials_failure_or_its_retry(begin, tmp_path, error, status, reason):
    """An exception is the trial's failure, a dead worker is not; Tune's files of it are removed."""
    searcher, scheduler = begin()
    searcher.suggest("a")
    pickled, text = tmp_path / "error.pkl", tmp_path / "error.txt"
    pickled.write_bytes(b"" if error is None else cloudpickle.dumps(error))
    text.write_text("a traceback with a secret")
    trial = tune_trial(
        searcher, "a", pickled_error_file=str(pickled), error_file=str(text), run_metadata=SimpleNamespace()
    )
    scheduler.on_trial_error(None, trial)
    searcher.on_trial_complete("a", error=True)
    view = scheduler.driver.ledger.trials[0]
    assert (view.status, view.reason) == (status, reason)
    assert view.attempt == (0 if status == "FAIL" else 1)
    assert not pickled.exists()
    assert not text.exists()

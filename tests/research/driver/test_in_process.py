"""A sweep in one process, without Ray (``--address none``): real trials, real files."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from research.driver.audience import Silent
from research.driver.in_process import InProcess
from research.driver.session import run
from research.errors import UserError
from research.ledger.log import Ledger
from research.ledger.settings import Asha
from research.on_ray.choice import engine_at
from research.planning.preflight import check_address
from research.planning.resources import resources_of
from tests.support.synthetic import science
from vae.data import Digits
from vae.likelihoods import Binomial
from vae.networks import Mlp
from vae.train_config import TrainConfig


def rows_of(ledger):
    """Every trial's draws, rows without times, decisions and checkpoint hashes."""
    return {
        number: (
            view.created.params,
            view.status,
            {epoch: (science(row.metrics), row.decision, row.checkpoint_sha256) for epoch, row in view.rows.items()},
        )
        for number, view in ledger.trials.items()
    }


def test_in_process_sweep_ends_with_rows_and_kept_models(begin):
    """All trials end, the best model is kept, nothing of the session is left."""
    ledger, its_space = begin(scheduler=Asha(min_population=2))
    outcome = run(ledger, its_space, Silent(), InProcess())
    assert (outcome.signal, outcome.budget, outcome.lost, outcome.failing, outcome.problems) == (None,) * 4 + ([],)
    again = Ledger.open(ledger.directory)
    assert all(view.status in {"COMPLETE", "PRUNED"} for view in again.trials.values())
    assert [path.name for path in (ledger.directory / "models").iterdir()] == [f"trial-{again.ranked()[0].number:04d}"]
    assert not (ledger.directory / "ray").exists()


def test_in_process_sweep_stopped_between_two_steps_goes_on_to_the_same_rows(begin, monkeypatch):
    """A stop in the middle of an epoch saves the state; the resumed sweep equals an uninterrupted one."""
    whole, its_space = begin("whole")
    run(whole, its_space, Silent(), InProcess())

    stopped, its_space = begin("stopped")

    class StopsInTheSecondEpoch(Silent):
        """Sends Ctrl-C to the process when the second trial has its first row."""

        def row(self, row):
            if (row.trial, row.epoch) == (1, 1):
                signal.raise_signal(signal.SIGINT)

    outcome = run(stopped, its_space, StopsInTheSecondEpoch(), InProcess())
    assert outcome.signal == signal.SIGINT
    assert not Ledger.open(stopped.directory).trials[1].terminal
    run(stopped, its_space, Silent(), InProcess())
    assert rows_of(Ledger.open(stopped.directory)) == rows_of(Ledger.open(whole.directory))


class Broken(Exception):
    """Raised by a space's part."""


def test_in_process_trial_that_raises_fails_with_its_traceback_and_others_go_on(begin, monkeypatch):
    """The exception is the trial's own failure."""
    import research.worker.trial as worker

    train = worker.train_together

    def broken(config, *arguments, **named):
        if config.latent_size == 5:
            raise Broken("no such layer")
        return train(config, *arguments, **named)

    monkeypatch.setattr(worker, "train_together", broken)

    def choice(trial):
        return TrainConfig(
            data=Digits(),
            likelihood=Binomial(),
            network=Mlp(hidden=(8,)),
            latent_size=5 if trial.number == 1 else 2 + trial.suggest_int("more", 0, 2),
            epochs=1,
        )

    ledger, its_space = begin(function=choice, epochs=1)
    run(ledger, its_space, Silent(), InProcess())
    views = Ledger.open(ledger.directory).trials
    assert [(view.status, view.fail_kind) for view in views.values() if view.number == 1] == [("FAIL", "bug")]
    assert "Broken: no such layer" in views[1].reason
    assert any(view.status == "COMPLETE" for view in views.values())


def test_in_process_driver_error_is_no_trials_failure(begin):
    """An exception of the driver itself ends the session as it is, and leaves the trial open."""
    ledger, its_space = begin()

    class Fails(Silent):
        """A live view with a mistake in it."""

        def row(self, row):
            raise ZeroDivisionError("in the view")

    with pytest.raises(ZeroDivisionError, match="in the view"):
        run(ledger, its_space, Fails(), InProcess())
    assert not Ledger.open(ledger.directory).trials[0].terminal


@pytest.mark.parametrize(
    ("asked", "named"),
    [({"concurrent": 2}, "--concurrent 2"), ({"gpus_per_trial": 0.5}, "--gpus-per-trial 0.5")],
    ids=["concurrent", "share of a GPU"],
)
def test_resources_without_ray_refuse_several_trials_at_once(asked, named):
    """One line with the value and the remedy."""
    with pytest.raises(UserError, match=f"--address none trains one trial at a time, got {named}: leave"):
        resources_of(**({"concurrent": None, "cpus_per_trial": None, "gpus_per_trial": 0.0} | asked), address="none")


def test_resources_without_ray_are_those_of_one_slot():
    """As many threads as a Ray sweep with ``--concurrent 1`` has."""
    asked = {"cpus_per_trial": None, "gpus_per_trial": 0.0}
    alone = resources_of(concurrent=None, address="none", **asked)
    assert alone == resources_of(concurrent=1, address=None, **asked)
    check_address("none")
    assert isinstance(engine_at("none"), InProcess)


def test_in_process_engine_imports_no_ray():
    """It runs where Ray cannot even be imported."""
    code = (
        "import sys; sys.modules['ray'] = None\n"
        "from research.on_ray.choice import engine_at\n"
        "import research.driver.session\n"
        "engine_at('none')"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)

"""Drivers killed at twenty moments of real sweeps: begun, resumed, finishing; against a twin that nothing happened to."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import optuna
import pytest

from research.ledger.log import Ledger
from research.models.looks import model_hash
from research.on_ray.local import remove_leftovers
from research.store.folders import verify_folder
from tests.support.drivers import Driver, await_that, ended, rows, seeded, start
from tests.support.verbs import deterministic, losses, science, told
from tests.support.wandb_reader import read_runs
from vae.data import load_training
from vae.serialization import from_dict
from vae.train import train

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1200)]
KILLED = "2 driver killed"


class Killed:
    """A sweep whose driver is killed again and again; what was seen each time."""

    def __init__(self, tmp_path: Path, name: str, arguments: list[str]) -> None:
        self.tmp_path, self.directory, self.arguments = tmp_path, tmp_path / name, arguments
        self.seen: list[Ledger] = []
        self.pids: list[int] = []

    def drive(self, *, in_process: bool = False) -> Driver:
        """The next driver: it begins the sweep where there is none, and resumes it where there is, perhaps without Ray."""
        arguments = self.arguments
        if self.directory.exists():
            arguments = ["resume", str(self.directory), *(["--address", "none"] if in_process else [])]
        driver = start(self.tmp_path, *arguments)
        self.pids.append(driver.pid)
        return driver

    def kill_when(self, what: Callable[[Ledger], bool], *, in_process: bool = False) -> None:
        """SIGKILL as soon as ``what`` holds; the ledger as it was found afterwards is kept."""
        driver = self.drive(in_process=in_process)
        await_that(driver, self.directory, what)
        driver.kill()
        self.seen.append(Ledger.open(self.directory))

    def new_session(self) -> Callable[[Ledger], bool]:
        """Whether the driver that is about to be started has written its first event."""
        before = len(Ledger.open(self.directory).sessions) if self.directory.exists() else 0
        return lambda ledger: len(ledger.sessions) > before

    def finish(self) -> Ledger:
        """The last driver, which nothing happens to: exit code 0, nothing left of any of them."""
        driver = self.drive()
        assert driver.wait() == 0, driver.output
        assert driver.left_behind() == {}
        assert not (self.directory / "ray").exists()
        remove_leftovers()  # as the next driver would
        folders = [path.name for path in Path(tempfile.gettempdir()).glob("rr-*")]
        assert [name for name in folders if int(name.split("-")[1]) in self.pids] == []
        assert list(self.tmp_path.glob(".*.tmp")) == []
        return Ledger.open(self.directory)


def check_views(directory: Path, ledger: Ledger, expected: Ledger) -> None:
    """Kept models, study and W&B runs are the ledger's, and the twin's."""
    best = [view.number for view in expected.ranked()]
    assert [view.number for view in ledger.ranked()] == best
    for number in best[:3]:
        folder = directory / "models" / f"trial-{number:04d}"
        verify_folder(folder)
        assert model_hash(folder) == model_hash(expected.directory / "models" / f"trial-{number:04d}")
    assert list((directory / "trials").iterdir()) == []
    backend = optuna.storages.journal.JournalFileBackend(str(directory / "study.journal"))
    study = optuna.load_study(study_name=directory.name, storage=optuna.storages.JournalStorage(backend))
    states = [view.status for view in expected.trials.values()]
    assert [trial.state.name for trial in study.trials] == states
    assert [trial.intermediate_values for trial in study.trials] == [
        view.curve("val/elbo") for view in expected.trials.values()
    ]
    whole = {run.config["trial"]: run for run in read_runs(directory) if run.exit_code is not None}
    assert sorted(whole) == sorted(expected.trials)
    for number, view in expected.trials.items():
        logged = {row["epoch"]: row["val/elbo"] for row in whole[number].rows if "epoch" in row}
        assert logged == view.curve("val/elbo")
        assert whole[number].summary["status"] == view.status


def halfway(seen: Ledger, whole: Ledger, rung: int) -> bool:
    """Whether the driver was killed when some trials had been at ``rung`` and others, at work, were still to come."""
    there = {number for number, view in seen.trials.items() if rung in view.rows}
    to_come = {number for number, view in whole.trials.items() if rung in view.rows} - there
    return bool(there) and any(number in to_come and not view.terminal for number, view in seen.trials.items())


@pytest.fixture(scope="module")
def often_killed(tmp_path_factory, twin, small_space) -> tuple[Killed, Ledger]:
    """A deterministic sweep with W&B offline, its driver killed at ten seeded moments between its rows.

    Two of three sessions run without Ray, which takes most of a session's time to start and plays no part in the ledger.
    """
    storage = tmp_path_factory.mktemp("often")
    sweep = Killed(storage, "often", [*deterministic(small_space, storage, "often"), "--wandb", "offline"])
    for index, moment in enumerate(sorted(seeded("ten moments").sample(range(rows(twin)), 10))):
        begun = sweep.new_session()
        sweep.kill_when(
            lambda ledger, begun=begun, moment=moment: begun(ledger) and rows(ledger) >= moment,
            in_process=index % 3 > 0,
        )
    return sweep, sweep.finish()


@pytest.mark.fault(KILLED)
def test_ten_kills_between_rows_end_as_the_twin_did(often_killed, twin, tally):
    """SIGKILL as soon as a row is written, ten times: same trials, curves, decisions, models, study, W&B runs."""
    sweep, ledger = often_killed
    tally.happened(len(sweep.seen))
    tally.losing(losses(ledger, twin))

    assert told(ledger) == told(twin)
    assert len(ledger.sessions) == 11
    check_views(sweep.directory, ledger, twin)


@pytest.mark.fault("17 early stopping across restarts")
def test_a_rung_that_a_restart_fell_into_is_judged_as_without(often_killed, twin, tally):
    """Killed when some had been at a rung and others not: PRUNED with the rung's value in ledger, study and W&B."""
    sweep, ledger = often_killed
    judged = {epoch for view in twin.trials.values() for row in view.rows.values() for epoch in row.judged}
    assert any(halfway(seen, twin, rung) for seen in sweep.seen for rung in judged)
    tally.happened()  # how many of the kills were such depends on timing
    pruned = [view for view in ledger.trials.values() if view.status == "PRUNED"]
    assert pruned, "the sweep stops trials early"
    backend = optuna.storages.journal.JournalFileBackend(str(sweep.directory / "study.journal"))
    study = optuna.load_study(study_name="often", storage=optuna.storages.JournalStorage(backend))
    whole = {run.config["trial"]: run for run in read_runs(sweep.directory) if run.exit_code is not None}
    for view in pruned:
        last = max(view.rows)
        value = view.rows[last].metrics["val/elbo"]
        assert (view.rows[last].decision, view.rows[last].reason) == (
            "pruned",
            twin.trials[view.number].rows[last].reason,
        )
        assert (study.trials[view.number].state.name, study.trials[view.number].value) == ("PRUNED", value)
        run = whole[view.number]
        assert run.summary["status"] == "PRUNED"
        assert [row["val/elbo"] for row in run.rows if row.get("epoch") == last] == [value]


@pytest.mark.fault(KILLED)
def test_kills_at_the_beginning_during_resumes_and_at_the_end(twin, small_space, tmp_path, tally):
    """Killed while it imports, at its first event, twice in a row while resuming, and after its last row."""
    sweep = Killed(tmp_path, "ends", [*deterministic(small_space, tmp_path, "ends"), "--wandb", "offline"])
    importing = sweep.drive()
    time.sleep(seeded("importing").uniform(0.05, 0.5))
    importing.kill()
    tally.happened()
    assert not sweep.directory.exists(), "nothing half-made is left"
    sweep.kill_when(lambda ledger: len(ledger) >= 1)
    sweep.kill_when(sweep.new_session())
    sweep.kill_when(sweep.new_session())
    sweep.kill_when(lambda ledger: rows(ledger) >= rows(twin) // 2)
    sweep.kill_when(lambda ledger: ended(ledger) == 6)
    assert (sweep.directory / "ray").exists(), "killed before it was done"
    tally.happened(len(sweep.seen))
    ledger = sweep.finish()
    tally.losing(losses(ledger, twin))

    assert told(ledger) == told(twin)
    check_views(sweep.directory, ledger, twin)
    again = start(tmp_path, "resume", sweep.directory)
    assert again.wait() == 2, "nothing is left to do"
    assert "nothing to resume" in again.output


@pytest.mark.fault(KILLED)
def test_the_default_mode_loses_nothing(small_space, tmp_path, tally):
    """Not deterministic, killed four times: every trial ended once, none RUNNING, each equal to its config's own run."""
    arguments = [a for a in deterministic(small_space, tmp_path, "default") if a != "--deterministic"]
    # Without early stopping the number of rows is known, so that every kill finds work.
    sweep = Killed(tmp_path, "default", [*arguments, "--scheduler", "none"])
    for index, moment in enumerate(sorted(seeded("default mode").sample(range(54), 4))):
        begun = sweep.new_session()
        sweep.kill_when(
            lambda ledger, begun=begun, moment=moment: begun(ledger) and rows(ledger) >= moment,
            in_process=index % 2 > 0,
        )
    tally.happened(len(sweep.seen))
    ledger = sweep.finish()
    tally.losing(sum(not view.terminal for view in ledger.trials.values()) + 54 - rows(ledger))

    assert len(ledger.sessions) == 5
    assert sorted(ledger.trials) == list(range(6))
    for seen in sweep.seen:  # what had ended, and every row that was written, is as it was
        for number, view in seen.trials.items():
            assert view.rows.items() <= ledger.trials[number].rows.items()
    for view in ledger.trials.values():
        assert view.status == "COMPLETE"
        assert sorted(view.rows) == list(range(1, 10)), "no epoch is missing"
        config = from_dict(view.created.config)
        alone = [
            result.row for _, result in zip(view.rows, train(config, load_training(config.data, None)), strict=False)
        ]
        assert [science(row) for row in alone] == [science(view.rows[epoch].metrics) for epoch in sorted(view.rows)]

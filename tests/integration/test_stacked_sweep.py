"""Sweeps that train several trials as one model: each is a trial of its own, and survives what a trial survives."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import optuna
import pytest

from research.ledger.log import Ledger
from research.store.folders import verify_folder
from tests.support.verbs import Finished, command, environment, research, science, told
from vae.data import load_training
from vae.serialization import from_dict
from vae.train import train

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.timeout(600)

SPACE = '''
from vae.data import Digits
from vae.likelihoods import Binomial
from vae.networks import Mlp
from vae.objectives import Elbo
from vae.optimizers import Adam
from vae.train_config import TrainConfig


def space(trial):
    """Two shapes; the bound's weight and the rate vary within one."""
    return TrainConfig(
        data=Digits(),
        likelihood=Binomial(),
        network=Mlp(hidden=(16,), dropout=0.1),
        latent_size=trial.suggest_categorical("latent_size", [4, 6]),
        objective=Elbo(beta=trial.suggest_float("beta", 0.5, 2.0)),
        optimizer=Adam(lr=trial.suggest_float("lr", 1e-4, 1e-2, log=True)),
        ema_decay=0.9,
        epochs=9,
    )
'''


@pytest.fixture(scope="session")
def stackable_space(tmp_path_factory) -> Path:
    """A space most of whose configs have another's shapes."""
    path = tmp_path_factory.mktemp("stackable") / "stackable.py"
    path.write_text(SPACE)
    return path


def arguments(space: Path, storage: Path, name: str) -> list[str]:
    """A deterministic sweep of nine trials, three at a time."""
    return [
        "sweep", str(space), "--trials", "9", "--name", name, "--storage", str(storage), "--deterministic", "--stack", "3",
        "--seed", "3", "--concurrent", "1", "--min-population", "3", "--wandb", "disabled", "--sampler-option",
        "startup_trials=3", "--report-seconds", "0",
    ]  # fmt: skip


@pytest.fixture(scope="session")
def stacked_twin(tmp_path_factory, stackable_space) -> Finished:
    """A stacked sweep that nothing happened to."""
    storage = tmp_path_factory.mktemp("stacked")
    ran = research(*arguments(stackable_space, storage, "twin"), timeout=500)
    assert ran.code == 0, ran.output
    return Finished(directory=storage / "twin", output=ran.output, code=ran.code)


def start(*asked: str | Path) -> subprocess.Popen[str]:
    """Begin ``research`` in the background."""
    return subprocess.Popen(
        command(*asked), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment()
    )


def wait_for_events(directory: Path, count: int, process: subprocess.Popen[str]) -> None:
    """Until the sweep's ledger has ``count`` events; fails if the driver ends before."""
    while not (directory / "ledger" / f"{count - 1:08d}.json").exists():
        assert process.poll() is None, f"the driver ended before event {count}"
        time.sleep(0.02)


def stacks(ledger: Ledger) -> list[dict[str, object] | None]:
    """What each row says of the stack in which it was trained, trial after trial."""
    return [view.rows[epoch].worker.get("stack") for view in ledger.trials.values() for epoch in sorted(view.rows)]


@pytest.mark.slow
def test_each_member_is_a_trial_of_its_own(stacked_twin):
    """Nine trials in ledger and study, early stopping at work within stacks, the best kept, each row as it is alone."""
    ledger = Ledger.open(stacked_twin.directory)
    backend = optuna.storages.journal.JournalFileBackend(str(stacked_twin.directory / "study.journal"))
    study = optuna.load_study(study_name="twin", storage=optuna.storages.JournalStorage(backend))
    states = [view.status for view in ledger.trials.values()]
    assert len(states) == 9
    assert set(states) == {"COMPLETE", "PRUNED"}
    assert [trial.state.name for trial in study.trials] == states
    assert any(stack is not None and len(stack.get("members", [])) > 1 for stack in stacks(ledger))
    for view in ledger.ranked()[:3]:
        verify_folder(stacked_twin.directory / "models" / f"trial-{view.number:04d}")
    for view in ledger.trials.values():
        config = from_dict(view.created.config)
        epochs = zip(sorted(view.rows), train(config, load_training(config.data, None)), strict=False)
        for epoch, alone in epochs:
            for name, value in science(alone.row).items():
                if isinstance(value, float):
                    assert view.rows[epoch].metrics[name] == pytest.approx(value, rel=1e-4, abs=1e-5), name


@pytest.mark.slow
def test_a_stacked_trial_is_reproduced_with_its_stack(stacked_twin):
    """``reproduce --stacked`` repeats the whole stack and is exact; alone it is within tolerance at least."""
    ledger = Ledger.open(stacked_twin.directory)
    rank = next(
        rank
        for rank, view in enumerate(ledger.ranked(), start=1)
        if "members" in (view.rows[1].worker.get("stack") or {})
    )
    together = research("reproduce", stacked_twin.directory, "--rank", str(rank), "--stacked", "--json")
    assert together.code == 0, together.output
    alone = research("reproduce", stacked_twin.directory, "--rank", str(rank), "--json")
    assert alone.code in {0, 3}, alone.output
    assert "-> alone" in "".join(json.loads(alone.output.splitlines()[-1])["surroundings"])


@pytest.mark.faults
@pytest.mark.fault("2 driver killed")
def test_a_killed_driver_of_stacks_ends_as_its_twin_did(stacked_twin, stackable_space, tmp_path, tally):
    """SIGKILL in the middle of a stack, resumed: the same trials, curves and decisions, bit for bit."""
    directory = tmp_path / "killed"
    expected = Ledger.open(stacked_twin.directory)
    process = start(*arguments(stackable_space, tmp_path, "killed"))
    for events in (len(expected) // 3, 2 * len(expected) // 3):
        wait_for_events(directory, events, process)
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        tally.happened()
        process = start("resume", directory)
    output, _ = process.communicate(timeout=500)
    assert process.returncode == 0, output
    ledger = Ledger.open(directory)
    assert len(ledger.sessions) == 3
    assert told(ledger) == told(expected)


@pytest.mark.faults
@pytest.mark.fault("1 worker killed")
def test_a_killed_worker_of_a_stack_loses_no_member(stacked_twin, stackable_space, tmp_path, tally):
    """SIGKILL of a stack's process: every member that had not ended is retried, and all end as the twin's did."""
    directory = tmp_path / "worker"
    expected = Ledger.open(stacked_twin.directory)
    process = start(*arguments(stackable_space, tmp_path, "worker"))
    wait_for_events(directory, 12, process)
    ledger = Ledger.open(directory)
    busy = [view for view in ledger.trials.values() if view.rows and not view.terminal]
    os.kill(busy[0].rows[max(busy[0].rows)].worker["pid"], signal.SIGKILL)
    output, _ = process.communicate(timeout=500)
    assert process.returncode == 0, output
    ledger = Ledger.open(directory)
    if any(view.attempt == 1 for view in ledger.trials.values()):
        tally.happened()
    assert told(ledger) == told(expected)

"""One contract for what runs a sweep's trials: Ray Tune, and one process without Ray (``--address none``)."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from research.ledger.log import Ledger
from research.store.folders import read_folder, verify_folder
from tests.support.services import start, wait_for_events
from tests.support.verbs import Finished, deterministic, research, told

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

ENGINES = {"ray": ("--concurrent", "1"), "in process": ("--address", "none")}

PARTS = '''
import math
import sys
from dataclasses import dataclass

from vae.objectives import Elbo
from vae.objectives.loss import Loss


@dataclass(frozen=True)
class Failing:
    """The negative ELBO for one epoch, then something goes wrong as ``how`` says."""

    how: str = "not"
    kind = "failing"
    samples = 1
    importance_weighted = False
    posteriors = ("diagonal",)

    def loss(self, batch):
        """A scalar."""
        loss = Elbo().loss(batch)
        if batch.progress.step < batch.progress.steps_per_epoch:
            return loss
        if self.how == "diverges":
            return Loss(loss.total * math.nan)
        if self.how == "raises":
            raise KeyError("no such layer")
        if self.how == "exits":
            sys.exit(0)
        if self.how == "needs memory":
            raise MemoryError("64 GiB")
        return loss

    def annealing_epochs(self, epochs):
        """None."""
        return 0

    def cycle_epochs(self, epochs):
        """None."""
'''

SPACE = '''
from vae.data import Digits
from vae.external import External
from vae.likelihoods import Binomial
from vae.networks import Mlp
from vae.train_config import TrainConfig


def space(trial):
    """Each way of failing, and two healthy configs."""
    how = trial.suggest_categorical("how", ["not", "diverges", "raises", "exits", "needs memory"])
    return TrainConfig(
        data=Digits(),
        likelihood=Binomial(),
        network=Mlp(hidden=(8,)),
        latent_size=trial.suggest_int("latent_size", 2, 3),
        objective=External(path={parts!r}, settings={{"how": how}}),
        epochs=3,
    )
'''


@pytest.fixture(scope="module")
def swept(tmp_path_factory) -> dict[str, Finished]:
    """The same sweep on each engine."""
    storage = tmp_path_factory.mktemp("engines")
    (storage / "parts.py").write_text(PARTS)
    space = storage / "failing.py"
    space.write_text(SPACE.format(parts=f"{storage / 'parts.py'}:Failing"))
    done = {}
    for engine, options in ENGINES.items():
        name = engine.replace(" ", "-")
        ran = research(
            "sweep", space, "--name", name, "--storage", storage, "--wandb", "disabled", "--trials", "10",
            "--sampler", "grid", "--min-population", "2", "--max-failed", "100", "--replicates", "1", *options,
        )  # fmt: skip
        done[engine] = Finished(directory=storage / name, output=ran.output, code=ran.code)
    return done


@pytest.fixture(params=ENGINES)
def engine(request) -> str:
    """Each engine by its name."""
    return request.param


def by_way(ledger: Ledger) -> dict[str, set[tuple[str, str | None]]]:
    """How the trials ended, by how they were to fail."""
    found: dict[str, set[tuple[str, str | None]]] = {}
    for view in ledger.trials.values():
        found.setdefault(str(view.created.params["how"]), set()).add((view.status, view.fail_kind))
    return found


def test_engine_ends_every_trial_as_it_should(swept, engine):
    """Healthy trials complete or are pruned; each failure has its kind, and none touches another trial."""
    assert swept[engine].code == 0, swept[engine].output
    ways = by_way(Ledger.open(swept[engine].directory))
    assert ways.pop("not") <= {("COMPLETE", None), ("PRUNED", None)}
    for way, kind in {"diverges": "diverged", "raises": "bug", "exits": "bug", "needs memory": "out_of_memory"}.items():
        # Early stopping may have ended one of the two after its healthy epoch.
        assert ("FAIL", kind) in ways[way]
        assert ways[way] <= {("FAIL", kind), ("PRUNED", None)}


def test_engine_leaves_whole_models_and_nothing_else(swept, engine):
    """The kept models verify, and the session's scratch folder is gone."""
    directory = swept[engine].directory
    models = sorted((directory / "models").iterdir())
    assert models
    for model in models:
        verify_folder(model)
    assert not (directory / "ray").exists()


def test_engines_agree_in_draws_rows_decisions_and_weights(swept):
    """Everything but times and places is equal to the last bit."""
    one, other = (Ledger.open(finished.directory) for finished in swept.values())
    assert told(one) == told(other)
    pairs = [
        (row.checkpoint_sha256, other.trials[view.number].rows[epoch].checkpoint_sha256)
        for view in one.trials.values()
        for epoch, row in view.rows.items()
    ]
    both = [
        pair for pair in pairs if None not in pair
    ]  # which epochs between two reports have one depends on the clock
    assert len(both) >= sum(view.final is not None and view.status != "FAIL" for view in one.trials.values())
    assert all(mine == its for mine, its in both)
    kept = [{model.name for model in (each.directory / "models").iterdir()} for each in (one, other)]
    assert kept[0] == kept[1]
    for name in kept[0]:
        weights = [read_folder(each.directory / "models" / name)["model.safetensors"] for each in (one, other)]
        assert weights[0] == weights[1]


def stopped(arguments: list[str], directory: Path) -> None:
    """Begin a sweep and stop it in the middle with Ctrl-C."""
    process = start(*arguments)
    wait_for_events(directory, 9, process)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 128 + signal.SIGINT, output
    ledger = Ledger.open(directory)
    assert any(not view.terminal for view in ledger.trials.values()) or len(ledger.trials) < ledger.settings.trials


def test_sweep_begun_with_ray_and_resumed_without_equals_its_twin(small_space, twin, tmp_path):
    """What was cut short goes on in one process, trial after trial, with the same rows."""
    stopped(deterministic(small_space, tmp_path, "s"), tmp_path / "s")
    ran = research("resume", tmp_path / "s", "--address", "none")
    assert ran.code == 0, ran.output
    assert told(Ledger.open(tmp_path / "s")) == told(Ledger.open(twin.directory))


def test_sweep_begun_without_ray_and_resumed_with_it_equals_its_twin(small_space, tmp_path):
    """The reverse."""

    def arguments(name: str) -> list[str]:
        given = deterministic(small_space, tmp_path, name)
        place = given.index("--concurrent")
        return [*given[:place], "--address", "none", *given[place + 2 :]]

    whole = research(*arguments("whole"))
    assert whole.code == 0, whole.output
    stopped(arguments("s"), tmp_path / "s")
    ran = research("resume", tmp_path / "s")
    assert ran.code == 0, ran.output
    assert told(Ledger.open(tmp_path / "s")) == told(Ledger.open(tmp_path / "whole"))


@pytest.mark.parametrize(
    "options", [("--concurrent", "2"), ("--stack", "2"), ("--gpus-per-trial", "0.5")], ids=lambda given: given[0]
)
def test_sweep_without_ray_refuses_several_trials_at_once(small_space, tmp_path, options):
    """One line with the value and the remedy, exit code 2, and no sweep."""
    ran = research("sweep", small_space, "--storage", tmp_path, "--name", "s", "--address", "none", *options)
    assert ran.code == 2
    assert ran.output.strip().count("\n") == 0
    assert f"--address none trains one trial at a time, got {options[0]} {options[1]}" in ran.output
    assert not (tmp_path / "s").exists()

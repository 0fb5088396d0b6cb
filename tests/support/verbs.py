"""Runs ``research`` as a person does, and reads what it leaves."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from research.ledger.log import Ledger

SPACE = '''
from vae.data import Digits
from vae.likelihoods import Binomial
from vae.networks import Mlp
from vae.optimizers import Adam
from vae.train_config import TrainConfig


def space(trial):
    """Small and quick, with a parameter that only some trials have."""
    depth = trial.suggest_int("depth", 0, 2)
    width = trial.suggest_int("width", 8, 64) if depth else 8
    return TrainConfig(
        data=Digits(),
        likelihood=Binomial(),
        network=Mlp(hidden=(width,) * depth, dropout=trial.suggest_float("dropout", 0.0, 0.2)),
        latent_size=trial.suggest_int("latent_size", 2, 8),
        optimizer=Adam(lr=trial.suggest_float("lr", 1e-4, 1e-2, log=True)),
        ema_decay=0.9,
        epochs=9,
    )
'''


@dataclass(frozen=True)
class Finished:
    """A sweep that a process ran to its end, and what the process said."""

    directory: Path
    output: str
    code: int


def command(*arguments: str | Path) -> list[str]:
    """The command line of ``research`` in this environment."""
    return [sys.executable, "-m", "research.cli", *map(str, arguments)]


def environment() -> dict[str, str]:
    """This process's, without what would change a sweep."""
    hidden = ("WANDB_", "RAY_", "OMP_", "MKL_")
    return {name: value for name, value in os.environ.items() if not name.startswith(hidden)}


def research(*arguments: str | Path, timeout: float = 300) -> Finished:
    """Run ``research`` to its end."""
    done = subprocess.run(
        command(*arguments), capture_output=True, text=True, timeout=timeout, env=environment(), check=False
    )
    return Finished(directory=Path(), output=done.stdout + done.stderr, code=done.returncode)


def deterministic(space: Path, storage: Path, name: str) -> list[str]:
    """The arguments of the sweep that is killed, and of its twin. With an event for each epoch, kills meet the same events."""
    return [
        "sweep", str(space), "--trials", "6", "--name", name, "--storage", str(storage), "--deterministic",
        "--seed", "3", "--concurrent", "2", "--cpus-per-trial", "1", "--min-population", "2", "--wandb", "disabled",
        "--report-seconds", "0",
    ]  # fmt: skip


def told(ledger: Ledger) -> dict[int, object]:
    """Everything of each trial that must not depend on when it ran: draws, configs, curves, decisions."""
    return {
        number: (
            view.status,
            view.reason,
            view.created.params,
            view.created.config,
            view.created.seed,
            {epoch: (science(row.metrics), row.decision) for epoch, row in view.rows.items()},
        )
        for number, view in ledger.trials.items()
    }


def losses(ledger: Ledger, twin: Ledger) -> int:
    """How many of the twin's trials are not in ``ledger`` as they are there."""
    mine = told(ledger)
    return sum(mine.get(number) != facts for number, facts in told(twin).items())


def science(metrics: dict[str, object]) -> dict[str, object]:
    """A row without its timings."""
    return {name: value for name, value in metrics.items() if not name.startswith("time/")}

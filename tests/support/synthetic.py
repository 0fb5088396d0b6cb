"""Sweeps that never ran: ledgers with invented trials, for tests of what is derived from them."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from research.ledger.events import RowReported, SessionStarted, SweepCreated, TrialCreated, TrialFailed
from research.ledger.log import Ledger
from research.ledger.settings import Metric, SpaceSource, SweepSettings
from vae.optimizers import Adam
from vae.serialization import to_dict
from vae.train_config import TrainConfig

if TYPE_CHECKING:
    from pathlib import Path

MEASURE = "counts-16|8x8|data=feed|split=beef"
SOURCE = "def space(trial):\n    return None\n"


def settings(**changes: Any) -> SweepSettings:
    """Settings of a sweep named quick, with ``changes``."""
    fields: dict[str, Any] = {
        "name": "quick",
        "space": SpaceSource(name="quickstart", source=SOURCE, sha256=hashlib.sha256(SOURCE.encode()).hexdigest()),
        "metric": Metric(),
        "trials": 8,
        "epochs": 3,
        "keep": 2,
        "measure": MEASURE,
        "data_hash": "feed",
        "split_hash": "beef",
    }
    return SweepSettings(**(fields | changes))


def sweep(**changes: Any) -> SweepCreated:
    """The first event of a sweep with these settings."""
    return SweepCreated(
        settings=settings(**changes),
        code={"commit": "c0ffee", "dirty": False},
        versions={"torch": "2"},
        command=["research", "sweep"],
    )


def session(generation: int = 0, **changes: Any) -> SessionStarted:
    """A driver's session."""
    fields: dict[str, Any] = {
        "generation": generation,
        "pid": 1,
        "host": "here",
        "code": {"commit": "c0ffee", "dirty": False, "diff_sha256": None, "source_sha256": "5eed"},
        "versions": {"python": "3.11", "torch": "2"},
        "hardware": {"cpu": "made up"},
    }
    return SessionStarted(**(fields | changes))


def trial(number: int, **changes: Any) -> TrialCreated:
    """A trial as sampled, every value a function of its number."""
    fields: dict[str, Any] = {
        "trial": number,
        "params": {"lr": 1e-3 / (number + 3), "latent_size": 2 + number},
        "distributions": {"lr": "{}", "latent_size": "{}"},
        "config": to_dict(TrainConfig(latent_size=2 + number, optimizer=Adam(lr=1e-3 / (number + 3)), seed=7 + number)),
        "config_hash": f"hash-{number}",
        "seed": 7 + number,
        "sampler_seed": number,
    }
    return TrialCreated(**(fields | changes))


def row(number: int, epoch: int, elbo: float | None, decision: Any = "continue", **changes: Any) -> RowReported:
    """A row whose other metrics follow from ``elbo``; None stands for what was not finite."""
    metrics: dict[str, Any] = {
        "epoch": epoch,
        "val/elbo": elbo,
        "val/reconstruction": None if elbo is None else -elbo * 0.8,
        "val/kl": None if elbo is None else -elbo * 0.2,
        "val/active_units": 4 + epoch,
        "val/kl_per_dimension": [0.1 * epoch, 1 / 3, 2.0],
        "train/loss": 0.1 + number / 3 + 1 / (epoch + 1),
        "measure": MEASURE,
    }
    fields: dict[str, Any] = {
        "trial": number,
        "epoch": epoch,
        "metrics": metrics,
        "decision": decision,
        "worker": {"pid": 2, "host": "there", "threads": 1, "device": "cpu", "hardware": {"cpu": "worker's"}},
    }
    return RowReported(**(fields | changes))


def failed(number: int, kind: Any = "bug", reason: str = "IndexError: list index out of range") -> TrialFailed:
    """The end of a trial without a deciding row."""
    return TrialFailed(trial=number, kind=kind, reason=reason, detail="Traceback ...")


def new_ledger(directory: Path, **changes: Any) -> Ledger:
    """A sweep that has begun: its first event and its first session."""
    ledger = Ledger.create(directory, sweep(**changes))
    ledger.append(session())
    return ledger


def science(row: dict[str, Any]) -> dict[str, Any]:
    """A row's figures without those that depend on the clock."""
    return {name: value for name, value in row.items() if not name.startswith("time/")}

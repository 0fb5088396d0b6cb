"""The resolver of places: a trial of a sweep, a model folder, or a JSON file. Every verb uses it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from research.errors import UserError
from research.ledger.log import Ledger
from research.paths import whole
from research.store.layout import SweepFolder
from research.store.mirror import local

if TYPE_CHECKING:
    from pathlib import Path

_NUMBERED = re.compile(r"(?P<sweep>.+):(?P<trial>\d{1,9})")
FORMS = "a sweep's directory, a trial of it (DIR:7), a record.json, or a model folder"


@dataclass(frozen=True)
class SweepTrial:
    """A trial of a sweep, by its rank or by its number."""

    ledger: Ledger
    number: int
    asked: str  # the request as text: "rank 2 of sweeps/first", "trial 7 of sweeps/first"


@dataclass(frozen=True)
class Folder:
    """A folder that is not a sweep. It is a model folder if it has the files of one."""

    path: Path


@dataclass(frozen=True)
class JsonFile:
    """A file: a record or a config."""

    path: Path


Source = SweepTrial | Folder | JsonFile


def source_at(place: str | Path, rank: int = 1) -> Source:
    """Resolve ``place``, which is a path or an address. A sweep resolves to its trial of rank ``rank``.

    ``DIR:7`` is trial 7 of the sweep in DIR, with or without a result. An existing file or folder of exactly this name
    takes precedence.

    Raises:
        UserError: nothing is there, the sweep has no such rank or trial, or ``rank`` was given for a single model.
        CorruptFile: an event of the sweep is damaged.

    """
    path = local(place)
    if SweepFolder(path).is_sweep:
        return _by_rank(Ledger.open(path), rank, path)
    if path.exists():
        found: Source = Folder(path) if path.is_dir() else JsonFile(path)
    elif names_trial(str(path)):
        sweep, _, number = str(path).rpartition(":")
        found = _by_number(Ledger.open(sweep), int(number), sweep)
    else:
        raise UserError(f"{path} is not there: give {FORMS}")
    if rank != 1:
        raise UserError(f"--rank {rank}: {path} is one model; only a sweep's directory has ranks")
    return found


def names_trial(text: str) -> bool:
    """Return True if ``text`` means a trial of a sweep on this machine, as ``DIR:7`` does."""
    numbered = _NUMBERED.fullmatch(text)
    return numbered is not None and SweepFolder(whole(numbered["sweep"])).is_sweep


def _by_rank(ledger: Ledger, rank: int, path: Path) -> SweepTrial:
    ranked = ledger.ranked()
    if not ranked:
        raise UserError(
            f"no trial of {path} has a finite {ledger.settings.metric.name} yet: give a trial, e.g. {path}:0"
        )
    if not 1 <= rank <= len(ranked):
        raise UserError(f"--rank must be 1 to {len(ranked)}, the trials of {path} that have a result, got {rank}")
    return SweepTrial(ledger, ranked[rank - 1].number, f"rank {rank} of {path}")


def _by_number(ledger: Ledger, number: int, path: str) -> SweepTrial:
    if number not in ledger.trials:
        raise UserError(f"sweep {path} has no trial {number}: its trials are 0 to {max(ledger.trials, default=-1)}")
    if not ledger.trials[number].created.config:
        raise UserError(f"trial {number} of {path} has no config: {ledger.trials[number].reason}")
    return SweepTrial(ledger, number, f"trial {number} of {path}")

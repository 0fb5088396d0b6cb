"""Every look at a test split, written down: when, which model, on which data, why, and what was seen."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from research.errors import UserError, storing
from research.store.folders import read_sealed, sealed, write_sealed
from research.store.layout import LOOKS, WEIGHTS, SweepFolder
from research.store.mirror import store_of
from vae.durable import hash_file

if TYPE_CHECKING:
    from pathlib import Path


def looks_folder(model: Path) -> Path:
    """Return the folder of looks through ``model``: in its sweep, which outlives the model, else in the model's own folder."""
    sweep = SweepFolder(model.absolute().parent.parent)
    return sweep.looks if sweep.is_sweep else model / LOOKS


def identity(question: dict[str, Any]) -> str:
    """Equal for the same model asked the same thing on the same data."""
    return hashlib.sha256(json.dumps(question, sort_keys=True).encode()).hexdigest()[:16]


def earlier_look(model: Path, question: dict[str, Any]) -> dict[str, Any] | None:
    """The stored answer to ``question``, or None if it was never asked.

    Raises:
        CorruptFile: the look was written down but can't be read.

    """
    path = looks_folder(model) / f"{identity(question)}.json"
    if not path.exists():
        return None
    return read_sealed(path)


def write_look(model: Path, question: dict[str, Any], row: dict[str, Any], why: str) -> None:
    """Write a look down, whole or not at all."""
    folder = looks_folder(model)
    look = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "why": why,
        "question": question,
        "row": row,
    }
    path = folder / f"{identity(question)}.json"
    if (store := store_of(folder)) is not None:
        store.write(path.name, sealed(look))
    with storing(folder):
        folder.mkdir(exist_ok=True)
        write_sealed(path, look)


def count_looks(place: Path) -> int:
    """Return how many different looks at test a sweep directory, its finalists' included, or a lone model folder has on record."""
    sweep = SweepFolder(place)  # a lone model has its looks under the same name
    return sum(len(list(folder.glob("*.json"))) for folder in (sweep.looks, sweep.finalists.looks))


def model_hash(folder: Path) -> str:
    """sha256 of the weights in a model folder: the model's identity."""
    try:
        return hash_file(folder / WEIGHTS)
    except OSError as error:
        raise UserError(f"{folder / WEIGHTS} can't be read ({error.strerror}): not a model folder") from error

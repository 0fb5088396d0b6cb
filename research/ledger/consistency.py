"""The consistency of a record: its config and hash, seed, rows, best epoch, measure, replicates and stack.

A single record file cannot be compared with a ledger, so its parts are compared with each other.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from research.errors import UserError
from research.ledger.events import REPLICATES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import JsonValue

    from research.ledger.records import TrialRecord
    from vae.train_config import TrainConfig

_MOST_THREADS = 1024


def check_record(record: TrialRecord) -> None:
    """Refuse a record that contradicts itself. Only plain values of its config are read; no part is imported.

    Raises:
        UserError: the record contradicts itself; the message has both values.

    """
    for problem in _contradictions(record):
        raise UserError(_contradicted(record, problem))


def _contradicted(record: TrialRecord, problem: str) -> str:
    of = f"trial {record.trial} of {record.sweep}" if record.sweep else "a single run"
    return f"the record of {of} contradicts itself: {problem}; take an unchanged copy of the record"


def expected_rows(record: TrialRecord) -> int | None:
    """Return the number of rows that the record should have; None if it does not say.

    A trial that ended early, or has not ended, has the number of rows that it had when the record was made. Earlier
    versions did not store this number.
    """
    epochs = record.config.get("epochs")
    if record.status == "COMPLETE" and isinstance(epochs, int):
        return epochs
    return record.epochs_trained


def rows_in_words(record: TrialRecord) -> str:
    """Return the number of rows of the record and the number that it should have, as text."""
    there, wanted, epochs = len(record.rows), expected_rows(record), record.config.get("epochs")
    if wanted == epochs == there:
        return f"{there} epochs"
    of = f"{there} of {epochs} epochs, {record.status}"
    return of if wanted is not None else f"{of}; the record does not say how many rows it should have"


def _contradictions(record: TrialRecord) -> Iterator[str]:
    """Yield one line for each contradiction."""
    epochs = record.config.get("epochs")
    if record.config.get("seed") != record.seed:
        yield f"its seed is {record.seed}, and its config's is {str(record.config.get('seed'))[:50]}"
    found = [row.get("epoch") for row in record.rows]
    if found != list(range(1, len(found) + 1)):
        yield f"its rows must be of epochs 1, 2, ..., and they are of {_shortened(found)}"
    wanted = expected_rows(record)
    if wanted is not None and len(found) != wanted:
        yield f"it has {len(found)} rows, and its {record.status} trial had {wanted}"
    if isinstance(epochs, int) and len(found) > epochs:
        yield f"it has {len(found)} rows, and its config trains {epochs} epochs"
    measures = sorted({str(row.get("measure", "")) for row in record.rows} - {record.measure})
    if measures:
        yield f"its measure is {record.measure[:200]!r}, and a row has {measures[0][:200]!r}"
    yield from _best_contradicted(record)
    yield from _replicates_contradicted(record)
    if record.threads is not None and not 1 <= record.threads <= _MOST_THREADS:
        yield f"its threads must be 1 to {_MOST_THREADS}, and they are {record.threads}"
    stack = record.stacked
    if stack is not None:
        if not stack.position < len(stack.configs) == len(stack.epochs):
            yield f"its stack has {len(stack.configs)} configs and {len(stack.epochs)} ends, its own at {stack.position}"
        elif stack.configs[stack.position] != record.config:
            yield "its stack has another config in its own place"


def _best_contradicted(record: TrialRecord) -> Iterator[str]:
    """Yield a line if the best epoch by the record's metric is not the one that the record names."""
    best: tuple[int, float] | None = None
    # A single run that diverged keeps no weights of its last row.
    rows = record.rows[:-1] if record.status == "FAIL" and not record.sweep else record.rows
    for epoch, row in enumerate(rows, start=1):
        value = row.get(record.metric.name)
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            best = (epoch, value) if best is None or record.metric.better(value, best[1]) else best
    if best is None and record.measure and record.status in {"COMPLETE", "PRUNED"}:
        yield f"its metric {record.metric.name!r} is in none of its rows"
    if best is not None and record.best_epoch != best[0]:
        yield f"its best epoch is {record.best_epoch}, and by {record.metric.name} epoch {best[0]} is"
    if record.best_epoch is not None and not 1 <= record.best_epoch <= len(record.rows):
        yield f"its best epoch is {record.best_epoch}, and it has {len(record.rows)} rows"


def _replicates_contradicted(record: TrialRecord) -> Iterator[str]:
    """Yield a line for a row that is not the mean of the record's replicates. A diverged row belongs to one replicate."""
    rows = record.rows[:-1] if record.status == "FAIL" else record.rows
    for row in rows if record.replicates > 1 else []:
        held_out = [name for name in row if name.startswith("val/") and name.endswith(REPLICATES)]
        lengths = {len(each) for name in held_out if isinstance(each := row[name], list)}
        if lengths != {record.replicates}:
            yield f"it has {record.replicates} replicates, and the row of epoch {row['epoch']} is not the mean of so many"
            return


def _shortened(values: list[JsonValue]) -> str:
    text = ", ".join(map(str, values))
    return text if len(text) <= 80 else f"{text[:77]}..."  # noqa: PLR2004 - about one line


def names_external(value: JsonValue) -> bool:
    """Return True if the config ``value`` names an external part. Building such a config imports code."""
    if isinstance(value, dict):
        return value.get("kind") == "external" or any(map(names_external, value.values()))
    return isinstance(value, list) and any(map(names_external, value))


def config_of(record: TrialRecord) -> TrainConfig:
    """Check the record and return its config. External parts are imported here.

    Raises:
        UserError: the record contradicts itself, see :func:`check_record`, or its config does not have the recorded
            hash.
        ConfigError: the config is invalid.

    """
    from vae.serialization import config_hash, from_record  # noqa: PLC0415 - torch, whose threads may have to be set first

    check_record(record)
    config = from_record(record.config)
    if (digest := config_hash(config)) != record.config_hash:
        problem = f"its config has the hash {digest[:12]}, and its config_hash is {record.config_hash[:12]!r}"
        raise UserError(_contradicted(record, problem))
    return config

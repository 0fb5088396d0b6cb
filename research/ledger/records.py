"""TrialRecord: what is kept of a trial, enough to train it again and to say whether it came out the same."""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Literal, Self

from pydantic import JsonValue, TypeAdapter, ValidationError

from research.errors import CorruptFile, UserError
from research.ledger.checks import numbers
from research.ledger.events import REPLICATES, Facts
from research.ledger.log import Ledger, Status
from research.ledger.settings import Metric
from research.store.folders import verify_folder
from research.store.layout import MANIFEST, RECORD
from research.store.mirror import local
from vae.config import NonNegativeInt, PositiveInt, part
from vae.durable import LARGE_TEXT, read_file
from vae.system.manifest import has_manifest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from vae.train_config import TrainConfig

_MOST_THREADS = 1024
_CONFIG, _WEIGHTS = "config.json", "model.safetensors"  # vae.portable has these names, but needs torch


@part
class Stacked:
    """The stack in which a trial's first epoch was trained, itself included, in the order of its members."""

    position: NonNegativeInt
    configs: list[Facts]
    epochs: list[PositiveInt]  # that each had trained when the record was made

    @classmethod
    def of(cls, ledger: Ledger, trial: int) -> Self | None:
        """Of trial number ``trial``; None where it trained alone."""
        rows = ledger.trials[trial].rows
        stack = rows[min(rows)].worker.get("stack") if rows else None
        if not isinstance(stack, dict):
            return None
        members, position = stack.get("members"), stack.get("position")
        if not isinstance(members, list) or not isinstance(position, int):
            return None
        views = [ledger.trials[number] for number in members if isinstance(number, int)]
        return cls(
            position=position,
            configs=[view.created.config for view in views],
            epochs=[max(1, len(view.rows)) for view in views],
        )


@part
class TrialRecord:
    """One trial of one sweep, as its ledger has it.

    ``rows`` are in order of epochs, their units nats per example. ``code`` and ``versions`` are those of the
    driver in the session that wrote the last row; ``hardware``, ``threads`` and ``device`` those of the
    worker that computed the best row (the last one where there is no best).
    """

    format: Literal[1] = 1
    sweep: str
    trial: NonNegativeInt
    space: str
    space_sha256: str
    params: Facts
    config: Facts
    config_hash: str
    seed: int
    status: Status
    reason: str | None
    metric: Metric
    best_epoch: int | None
    rows: list[Facts]
    measure: str
    data_hash: str
    split_hash: str
    data_dir: str | None
    code: Facts
    versions: dict[str, str]
    hardware: Facts
    threads: int | None
    device: str | None
    replicates: PositiveInt = 1  # seeds that each row is the mean of
    stacked: Stacked | None = None
    label_names: tuple[str, ...] = ()  # of the data, by number; empty where each label is called by its number
    epochs_trained: NonNegativeInt | None = None  # how many rows there are; None in records of version 0.1.0

    @classmethod
    def of(cls, ledger: Ledger, trial: int) -> Self:
        """The record of trial number ``trial``, as far as it has come."""
        view, settings = ledger.trials[trial], ledger.settings
        best = view.best(settings.metric)
        row = best or view.rows.get(max(view.rows, default=-1))
        worker = row.worker if row is not None else {}
        session = ledger.sessions[view.session] if ledger.sessions else None
        hardware = worker.get("hardware")
        threads, device = worker.get("threads"), worker.get("device")
        return cls(
            sweep=settings.name,
            trial=trial,
            space=settings.space.name,
            space_sha256=settings.space.sha256,
            params=view.created.params,
            config=view.created.config,
            config_hash=view.created.config_hash,
            seed=view.created.seed,
            status=view.status,
            reason=view.reason,
            metric=settings.metric,
            best_epoch=best.epoch if best is not None else None,
            rows=[row_json(view.rows[epoch].epoch, view.rows[epoch].metrics) for epoch in sorted(view.rows)],
            measure=settings.measure,
            data_hash=settings.data_hash,
            split_hash=settings.split_hash,
            data_dir=settings.data_dir,
            code=code_of(session.code if session is not None else ledger.created.code, worker),
            versions=session.versions if session is not None else ledger.created.versions,
            hardware=hardware if isinstance(hardware, dict) else session.hardware if session is not None else {},
            threads=threads if isinstance(threads, int) else None,
            device=device if isinstance(device, str) else None,
            replicates=settings.replicates,
            stacked=Stacked.of(ledger, trial),
            label_names=settings.label_names,
            epochs_trained=len(view.rows),
        )

    def to_json(self) -> str:
        """Indented JSON with sorted keys; equal records give equal text."""
        return pretty(_ADAPTER.dump_python(self))

    @classmethod
    def from_json(cls, text: str | bytes, source: str) -> TrialRecord:
        """The record in ``text``; ``UserError`` naming ``source`` for anything else."""
        try:
            numbers(text.encode("utf-8", "replace") if isinstance(text, str) else text)
        except ValueError as error:
            raise UserError(f"{source} is not a record of format 1 ({error})") from None
        try:
            return _ADAPTER.validate_json(text)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(str(step) for step in first["loc"])[:100] or "the whole text"
            raise UserError(f"{source} is not a record of format 1 ({place}: {first['msg'][:200]})") from error


_ADAPTER: TypeAdapter[TrialRecord] = TypeAdapter(TrialRecord)


def load_record(path: str | Path, rank: int = 1) -> TrialRecord:
    """The record at ``path``: a ``record.json``, a model folder (verified), or a sweep's trial of ``rank``.

    What it says of itself is not judged here, and its config is not made: see :func:`config_of`.

    Raises ``UserError`` for anything else, ``CorruptFile`` naming a damaged file.
    """
    path = local(path)
    if (path / "ledger").is_dir():
        ledger = Ledger.open(path)
        ranked = ledger.ranked()
        if not 1 <= rank <= len(ranked):
            raise UserError(f"rank {rank} of {path}: {len(ranked)} trials have a finite {ledger.settings.metric.name}")
        return TrialRecord.of(ledger, ranked[rank - 1].number)
    file = path / RECORD if path.is_dir() else path
    if path.is_dir() and has_manifest(path):
        verify_folder(path)  # names what stands in the place of a file
    if not file.is_file():
        raise UserError(f"{path} is neither a {RECORD}, nor a model folder, nor a sweep directory")
    if rank != 1:
        raise UserError(f"rank {rank} of {path}: only a sweep directory has ranks")
    if file.name == RECORD and (found := _verified_record(file.parent)) is not None:
        return found
    return _read_record(file)


def verify_model(folder: Path) -> TrialRecord | None:
    """Verify a model folder: every file by its manifest, the config by its record, the record by the sweep around it.

    Returns its record. A folder without one is None: ``config.json`` and weights alone are a model without a history,
    and a record alone is a record.

    Raises ``CorruptFile`` naming what is damaged or contradicts the rest.
    """
    record = _verified_record(folder)
    if record is not None:
        _check_config_of(folder, record)
    return record


def _verified_record(folder: Path) -> TrialRecord | None:
    """Return the record of a model folder whose files are those of its manifest; None where there is no manifest."""
    manifest = verify_folder(folder) if has_manifest(folder) else None
    has_record = (folder / RECORD).is_file()
    if manifest is None and has_record and (folder / _WEIGHTS).is_file():
        raise CorruptFile(
            f"{folder / MANIFEST} is missing: restore it from a copy; of a copy of {RECORD} alone the model can be trained again"
        )
    if manifest is None or not has_record:
        return None
    if RECORD not in manifest:
        raise CorruptFile(f"{folder / RECORD} is not in {MANIFEST}: it was added later; remove it")
    record = _read_record(folder / RECORD)
    _check_sweep_around(folder, record)
    return record


def _check_config_of(folder: Path, record: TrialRecord) -> None:
    """Refuse a model whose config is not its record's. Of several replicates the seed is that of the kept one."""
    if not (folder / _CONFIG).is_file():
        return
    try:
        config = json.loads(read_file(folder / _CONFIG))
    except (OSError, ValueError, RecursionError) as error:
        raise CorruptFile(f"{folder / _CONFIG} can't be read ({error}): restore it from a copy") from None
    wanted = dict(record.config)
    if record.replicates > 1 and isinstance(config, dict):
        wanted["seed"] = config.get("seed")
    if config != wanted:
        raise CorruptFile(f"{folder / _CONFIG} is not the config in {RECORD}: restore {folder} from a copy")


def _check_sweep_around(folder: Path, record: TrialRecord) -> None:
    """Refuse a model that lies in the place of another trial of the sweep around it."""
    whole = folder.resolve()
    sweep = whole.parent.parent
    if whole.parent.name != "models" or not (sweep / "ledger").is_dir():
        return
    try:
        ledger = Ledger.open(sweep)
    except UserError:
        return  # that is another file's damage, and another verb's business
    found = re.fullmatch(r"trial-(\d{4,15})", whole.name)
    view = None if found is None else ledger.trials.get(int(found[1]))
    if view is None or record.sweep != ledger.settings.name:
        return  # a model that somebody else put there
    if record.trial != view.number or record.config_hash != view.created.config_hash:
        raise CorruptFile(
            f"{folder} holds the model of trial {record.trial} (config {record.config_hash[:12]}), and the ledger has config "
            f"{view.created.config_hash[:12]} for trial {view.number}: restore it from a copy"
        )


def _read_record(file: Path) -> TrialRecord:
    try:
        raw = read_file(file, LARGE_TEXT)
    except OSError as error:
        raise UserError(f"{file} can't be read ({error.strerror})") from None
    return TrialRecord.from_json(raw, str(file))


def read_config_file(file: Path) -> str:
    """Return the text of a JSON file that a person named as a config. One in a model folder is verified with the folder.

    Raises ``UserError`` if it can't be read, ``CorruptFile`` if it is not what the folder's manifest says.
    """
    try:
        text = read_file(file, LARGE_TEXT).decode()
    except OSError as error:
        raise UserError(f"config {str(file)!r} can't be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"config {str(file)!r} can't be read: {error}") from None
    if file.name in {_CONFIG, RECORD}:
        verify_model(file.parent)
    return text


def check_record(record: TrialRecord) -> None:
    """Refuse a record that contradicts itself. Of its config only the plain values are looked at.

    Raises:
        UserError: with both values.

    """
    for problem in _contradictions(record):
        raise UserError(_contradicted(record, problem))


def _contradicted(record: TrialRecord, problem: str) -> str:
    of = f"trial {record.trial} of {record.sweep}" if record.sweep else "a single run"
    return f"the record of {of} contradicts itself: {problem}; take an unchanged copy of the record"


def expected_rows(record: TrialRecord) -> int | None:
    """Return how many rows the record says that it should have; None where it does not say.

    A trial that ended early, or has not ended, has as many as it had when the record was made. Earlier versions did not
    write that down.
    """
    epochs = record.config.get("epochs")
    if record.status == "COMPLETE" and isinstance(epochs, int):
        return epochs
    return record.epochs_trained


def rows_in_words(record: TrialRecord) -> str:
    """Return how many rows the record has, and how many it should have, for people."""
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
    """Yield a line if another epoch than the record's is the best by the record's metric."""
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
    """Yield a line for a row that is not the mean of the record's replicates. A diverged row is that of one of them."""
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
    """Return True if a part in the config ``value`` comes from outside the tree: making the config would import it."""
    if isinstance(value, dict):
        return value.get("kind") == "external" or any(map(names_external, value.values()))
    return isinstance(value, list) and any(map(names_external, value))


def config_of(record: TrialRecord) -> TrainConfig:
    """Return the config of a record that does not contradict itself. Parts from outside the tree are imported here.

    Raises:
        UserError: the record contradicts itself, see :func:`check_record`, or its config is not the one that was hashed.
        ConfigError: it is no config.

    """
    from vae.serialization import config_hash, from_record  # noqa: PLC0415 - torch, whose threads may have to be set first

    check_record(record)
    config = from_record(record.config)
    if (digest := config_hash(config)) != record.config_hash:
        problem = f"its config has the hash {digest[:12]}, and its config_hash is {record.config_hash[:12]!r}"
        raise UserError(_contradicted(record, problem))
    return config


def code_of(code: Facts, worker: Facts) -> Facts:
    """The driver's ``code``, and the sources from outside the tree that the worker ran, by path, where there were any."""
    external = worker.get("external")
    return {**code, "external": external} if external else code


def row_json(epoch: int, metrics: Facts) -> Facts:
    """A row as it is kept outside the ledger: its metrics, the epoch among them."""
    return {**metrics, "epoch": epoch}


def pretty(value: JsonValue) -> str:
    """JSON for people: indented, sorted, finite."""
    return json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n"

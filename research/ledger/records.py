"""TrialRecord: everything that is needed to train a trial again and to judge whether it reproduced."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Literal, Self

from pydantic import JsonValue, TypeAdapter, ValidationError

from research.errors import CorruptFile, UserError
from research.ledger.checks import numbers
from research.ledger.events import Facts
from research.ledger.log import Ledger
from research.ledger.settings import Metric
from research.ledger.source import FORMS, Folder, JsonFile, SweepTrial, source_at
from research.ledger.trial_view import Status
from research.store.folders import verify_folder
from research.store.layout import CONFIG, MANIFEST, RECORD, WEIGHTS, sweep_around, trial_number
from vae.config import NonNegativeInt, PositiveInt, part
from vae.durable import LARGE_TEXT, read_file, read_text
from vae.system.manifest import has_manifest

if TYPE_CHECKING:
    from pathlib import Path


@part
class Stacked:
    """The stack in which a trial's first epoch was trained, itself included, in the order of its members."""

    position: NonNegativeInt
    configs: list[Facts]
    epochs: list[PositiveInt]  # the epochs that each member had trained when the record was made

    @classmethod
    def of(cls, ledger: Ledger, trial: int) -> Self | None:
        """Return the stack of trial number ``trial``; None if it did not train in a stack."""
        rows = ledger.trials[trial].rows
        stack = rows[min(rows)].worker.get("stack") if rows else None
        if not isinstance(stack, dict):
            return None
        members, position = stack.get("members"), stack.get("position")
        if not isinstance(members, list) or not isinstance(position, int):
            return None
        views = [ledger.trials[number] for number in members if isinstance(number, int) and number in ledger.trials]
        if isinstance(position, bool) or not 0 <= position < len(views) == len(members):
            return None
        return cls(
            position=position,
            configs=[view.created.config for view in views],
            epochs=[max(1, len(view.rows)) for view in views],
        )


@part
class TrialRecord:
    """One trial of one sweep, from the ledger.

    ``rows`` are in order of epochs; likelihoods are in nats per example. ``code`` and ``versions`` are those of the
    driver in the session that wrote the last row. ``hardware``, ``threads`` and ``device`` are those of the worker
    that computed the best row, or the last row if there is no best one.
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
    replicates: PositiveInt = 1  # the number of seeds; each row is their mean
    stacked: Stacked | None = None
    label_names: tuple[str, ...] = ()  # by number; empty if the labels are numbers
    epochs_trained: NonNegativeInt | None = None  # the number of rows; None in records of version 0.1.0

    @classmethod
    def of(cls, ledger: Ledger, trial: int) -> Self:
        """Return the record of trial number ``trial``, with the rows that exist so far."""
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
            threads=threads if isinstance(threads, int) and not isinstance(threads, bool) else None,
            device=device if isinstance(device, str) else None,
            replicates=settings.replicates,
            stacked=Stacked.of(ledger, trial),
            label_names=settings.label_names,
            epochs_trained=len(view.rows),
        )

    def to_json(self) -> str:
        """Return indented JSON with sorted keys. Equal records give equal text."""
        return pretty(_ADAPTER.dump_python(self))

    @classmethod
    def from_json(cls, text: str | bytes, source: str) -> TrialRecord:
        """Return the record in ``text``. Anything else raises ``UserError`` with the name ``source``."""
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
    """Return the record at ``path``: a ``record.json``, a model folder (verified), or a trial of a sweep.

    The content is not judged here, and the config is not built; see :func:`config_of`.

    Raises:
        UserError: ``path`` is none of these.
        CorruptFile: a file is damaged; the message names it.

    """
    match source_at(path, rank):
        case SweepTrial(ledger, number, _):
            return TrialRecord.of(ledger, number)
        case JsonFile(file):
            pass
        case Folder(folder):
            if has_manifest(folder):
                verify_folder(folder)  # names what stands in the place of a file
            file = folder / RECORD
            if not file.is_file():
                raise UserError(f"{folder} holds no {RECORD}: give {FORMS}")
    if file.name == RECORD and (found := _verified_record(file.parent)) is not None:
        return found
    return _read_record(file)


def verify_model(folder: Path) -> TrialRecord | None:
    """Verify a model folder: every file by its manifest, the config by its record, the record by the sweep around it.

    Return its record, or None if it has none: ``config.json`` and weights alone are a model without a history.

    Raises:
        CorruptFile: a file is damaged or contradicts the others; the message names it.

    """
    record = _verified_record(folder)
    if record is not None:
        _check_config_of(folder, record)
    return record


def _verified_record(folder: Path) -> TrialRecord | None:
    """Check the files of a model folder against its manifest and return its record; None if there is no manifest."""
    manifest = verify_folder(folder) if has_manifest(folder) else None
    has_record = (folder / RECORD).is_file()
    if manifest is None and has_record and (folder / WEIGHTS).is_file():
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
    """Refuse a model whose config differs from its record. With replicates, the seed is that of the kept replicate."""
    if not (folder / CONFIG).is_file():
        return
    try:
        config = json.loads(read_file(folder / CONFIG))
    except (OSError, ValueError, RecursionError) as error:
        raise CorruptFile(f"{folder / CONFIG} can't be read ({error}): restore it from a copy") from None
    wanted = dict(record.config)
    if record.replicates > 1 and isinstance(config, dict):
        wanted["seed"] = config.get("seed")
    if config != wanted:
        raise CorruptFile(f"{folder / CONFIG} is not the config in {RECORD}: restore {folder} from a copy")


def _check_sweep_around(folder: Path, record: TrialRecord) -> None:
    """Refuse a model whose folder has the name of another trial of the surrounding sweep."""
    whole = folder.resolve()
    sweep = sweep_around(whole)
    if sweep is None:
        return
    try:
        ledger = Ledger.open(sweep.path)
    except UserError:
        return  # the ledger is damaged, which is not the fault of this model
    number = trial_number(whole.name)
    view = None if number is None else ledger.trials.get(number)
    if view is None or record.sweep != ledger.settings.name:
        return  # a model of another sweep was put there
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
    """Return the text of a JSON file that is named as a config. If it is in a model folder, the folder is verified.

    Raises:
        UserError: the file cannot be read.
        CorruptFile: the file does not match the manifest of its folder.

    """
    try:
        text = read_text(file, LARGE_TEXT)
    except OSError as error:
        raise UserError(f"config {str(file)!r} can't be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"config {str(file)!r} can't be read: {error}") from None
    if file.name in {CONFIG, RECORD}:
        verify_model(file.parent)
    return text


def code_of(code: Facts, worker: Facts) -> Facts:
    """Return the driver's ``code`` together with the sources of external parts that the worker ran, by path."""
    external = worker.get("external")
    return {**code, "external": external} if external else code


def row_json(epoch: int, metrics: Facts) -> Facts:
    """Return a row in the form that is used outside the ledger: its metrics and its epoch."""
    return {**metrics, "epoch": epoch}


def pretty(value: JsonValue) -> str:
    """Return indented JSON with sorted keys and finite numbers."""
    return json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n"

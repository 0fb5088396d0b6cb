"""The sweep's ledger: every event of a sweep, in order, and what follows from them. The only truth there is.

An event is one small file that never changes, ``DIR/ledger/00000012.json``, numbered without gaps:

    {"event": {"type": "row", ...}, "previous": <sha256>, "sequence": 12, "time": <iso, utc>, "sha256": <hex>}

``sha256`` covers the canonical JSON (sorted keys, no spaces, no NaN) of everything before it; ``previous`` is
the ``sha256`` of the event before. So a torn, altered, missing or foreign file is refused by name. A file is
written beside its place, synced and then linked into it, which fails when the number is taken: two drivers on
one sweep collide loudly. The only thing ever unfinished there is a temporary file, which readers ignore.
Of a sweep in an object store the directory is a mirror: an event is created there first (``research.store.mirror``).

The Optuna study, the W&B runs, the kept models and the live table are views, made again from here at will.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import heapq
import json
import math
import os
import re
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import AfterValidator, JsonValue, TypeAdapter, ValidationError

from research.errors import CorruptFile, UserError, storing
from research.ledger import checks, pareto, tail
from research.ledger.comparison import facts_of_recorded, why_not
from research.ledger.events import (
    SKIPPED,
    Event,
    Facts,
    FailKind,
    Interrupted,
    RetryCause,
    RowReported,
    RowsReported,
    SessionStarted,
    SweepCreated,
    SweepExtended,
    TrialCreated,
    TrialFailed,
    TrialRetried,
    TrialsLearned,
)
from research.ledger.standing import Standing
from research.store.in_place import InPlace, SweepGoneError, refuse_gone
from research.store.mirror import store_of
from research.text import shell
from vae.config import NonNegativeInt, part
from vae.durable import LARGE_TEXT, read_file, sync_directory, write_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from research.ledger.settings import Metric, SweepSettings
    from research.ledger.standing import Merit

__all__ = [
    "Event",
    "FailKind",
    "Interrupted",
    "Ledger",
    "RowReported",
    "RowsReported",
    "SessionStarted",
    "Status",
    "SweepCreated",
    "SweepExtended",
    "TrialCreated",
    "TrialFailed",
    "TrialRetried",
    "TrialView",
    "TrialsLearned",
]

Status = Literal["RUNNING", "COMPLETE", "PRUNED", "FAIL", "SKIPPED"]


@part
class _Envelope:
    sequence: NonNegativeInt
    previous: str
    time: Annotated[str, AfterValidator(checks.moment)]
    event: Event


_ENVELOPE: TypeAdapter[_Envelope] = TypeAdapter(_Envelope)
_STATUS: dict[str, Status] = {"complete": "COMPLETE", "pruned": "PRUNED", "fail": "FAIL"}
_EVENT_FILE = re.compile(r"\d{8}\.json")
_SEAL = re.compile(rb',"sha256":"([0-9a-f]{64})"}\n')
TIMES = ("time/train_seconds", "time/evaluation_seconds")  # of an epoch: what a row says that it took
FAR = 1e9  # by how much a constraint is missed where its metric is missing: JSON has no infinity
_SEAL_BYTES = len(',"sha256":""}\n') + 64


@dataclass
class TrialView:
    """A trial as the events so far tell it. Rows are keyed by epoch: the first report of an epoch counts."""

    created: TrialCreated
    started: str  # iso time, utc
    updated: str  # of the latest event
    session: int  # index of the driver session in which the latest event was written
    latest: int = 0  # number of the latest event
    rows: dict[int, RowReported] = field(default_factory=dict)
    attempt: int = 0
    retries: Counter[RetryCause] = field(default_factory=Counter)  # since its last row, by cause
    whole_gpu: bool = False  # a share of one was too little
    final: RowReported | None = None
    failure: TrialFailed | None = None
    incomparable: str | None = None  # why its rows may not be ranked with the sweep's
    # As asked for so far. Of these rows alone: a copy with others begins anew.
    _curves: dict[str, dict[int, float]] = field(init=False, default_factory=dict, repr=False, compare=False)

    @property
    def number(self) -> int:
        return self.created.trial

    @property
    def terminal(self) -> bool:
        return self.final is not None or self.failure is not None

    @property
    def status(self) -> Status:
        if self.failure is not None:
            return "SKIPPED" if self.failure.kind in SKIPPED else "FAIL"
        if self.final is None:
            return "RUNNING"
        return "FAIL" if self.incomparable else _STATUS[self.final.decision]

    @property
    def reason(self) -> str | None:
        ended_by = self.failure or self.final
        if ended_by is None:
            return None
        return self.incomparable if self.failure is None and self.incomparable else ended_by.reason

    @property
    def fail_kind(self) -> FailKind | None:
        if self.failure is not None:
            return self.failure.kind
        if self.status != "FAIL":
            return None
        return "incomparable" if self.incomparable else "diverged"

    @property
    def last_checkpoint(self) -> RowReported | None:
        """The latest row that has a checkpoint: the one to continue from (a newer one on disk has no row)."""
        return max((row for row in self.rows.values() if row.checkpoint), key=lambda r: r.epoch, default=None)

    def curve(self, metric: str) -> dict[int, float]:
        """The finite values of ``metric`` by epoch, in order of epochs. Kept: not to be written to."""
        if metric not in self._curves:
            values = {epoch: _finite(self.rows[epoch].metrics.get(metric)) for epoch in sorted(self.rows)}
            self._curves[metric] = {epoch: value for epoch, value in values.items() if value is not None}
        return self._curves[metric]

    def best(self, metric: Metric) -> RowReported | None:
        """The row with the best finite value of ``metric``, the earlier one of equals; None without one."""
        best: tuple[int, float] | None = None
        for epoch, value in self.curve(metric.name).items():
            if best is None or metric.better(value, best[1]):
                best = (epoch, value)
        return None if best is None else self.rows[best[0]]

    @property
    def seconds(self) -> float | None:
        """The seconds of training and evaluation by its rows; None if no row has them."""
        spent = [value for row in self.rows.values() for value in _times(row)]
        return sum(spent) if spent else None

    def fold(self, event: RowReported | TrialRetried | TrialFailed, time: str, session: int, number: int) -> bool:
        """Take in one event. What comes after the end, or tells an epoch again, changes nothing: False."""
        if self.terminal:
            return False
        match event:
            case RowReported():
                if event.epoch in self.rows:
                    return False
                self._extend_curves(event)
                self.rows[event.epoch] = event
                self.retries.clear()
                if event.decision != "continue":
                    self.final = event
            case TrialRetried():
                self.attempt = event.attempt
                self.retries[event.cause] += 1
                self.whole_gpu = self.whole_gpu or event.cause == "out_of_memory"
            case TrialFailed():
                self.failure = event
        self.updated, self.session, self.latest = time, session, number
        return True

    def _extend_curves(self, row: RowReported) -> None:
        if row.epoch < max(self.rows, default=row.epoch):
            self._curves.clear()
        for metric, curve in self._curves.items():
            if (value := _finite(row.metrics.get(metric))) is not None:
                curve[row.epoch] = value


class Ledger:
    """The events of one sweep, read and verified, and the views that follow from them.

    One process, the holder of the sweep's lock, appends; any number may follow with ``refresh``.
    Pickles as its path alone and is read again where it is unpickled.
    """

    directory: Path  # the sweep's
    created: SweepCreated
    identity: str  # sha256 of the first event: tells this sweep from any other of the same name
    trials: dict[int, TrialView]
    standing: Standing  # what they come to
    sessions: list[SessionStarted]
    spans: list[tuple[str, str]]  # iso times, utc, of each session's first and latest event
    first_row: str | None  # iso time, utc, of the latest session's first row
    session_rows: int  # how many rows the latest session has written
    learned: list[TrialsLearned]
    extended: SweepExtended | None  # the latest
    interrupted: Interrupted | None  # how the latest session ended, if it was asked to stop
    updated: str  # iso time, utc, of the latest event
    refused: UserError | None  # why an event could not be written; none is written after it

    def __init__(self, sweep_dir: str | Path) -> None:
        """Nothing is read yet: use ``Ledger.create`` or ``Ledger.open``."""
        self.directory = Path(sweep_dir).absolute()
        self.trials, self.sessions, self.interrupted = {}, [], None
        self.standing = Standing()
        self._fronts: tuple[int, dict[int, int]] = 0, {}  # pareto ranks, and of how many points
        self.spans, self.learned, self.extended = [], [], None
        self.first_row, self.session_rows = None, 0
        self._comparison: Facts = {}
        self._count = 0
        self._previous = ""
        self._wrote = False
        self.refused = None
        self._store = store_of(self.directory)
        self._in_place = InPlace(self.directory)

    @classmethod
    def create(cls, sweep_dir: str | Path, event: SweepCreated) -> Self:
        """Begin the ledger of a new sweep; its directory may exist, its ledger may not.

        Raises ``UserError`` for a directory that is a sweep already or can't be written.
        """
        ledger = cls(sweep_dir)
        if ledger._path(0).exists():
            raise UserError(
                f"{sweep_dir} holds a sweep: {shell('research', 'resume', sweep_dir)} continues it; or choose another name"
            )
        try:
            ledger._path(0).parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{sweep_dir} can't be written ({error.strerror}): choose another storage") from error
        ledger.append(event)
        return ledger

    @classmethod
    def open(cls, sweep_dir: str | Path) -> Self:
        """Read and verify every event.

        Raises ``UserError`` where there is no sweep, ``CorruptFile`` naming what is damaged or missing.
        """
        ledger = cls(sweep_dir)
        directory = ledger._path(0).parent
        try:
            names = [path.name for path in directory.iterdir() if _EVENT_FILE.fullmatch(path.name)]
        except OSError as error:
            raise UserError(f"{sweep_dir} is not a sweep directory ({directory}: {error.strerror})") from error
        if not names:
            raise UserError(f"{sweep_dir} is not a sweep directory (its ledger is empty)")
        ledger.refresh()
        missing = ledger._path(ledger._count)
        if missing.name <= max(names):
            raise CorruptFile(
                f"{missing} is missing, events after it are there: restore it from a copy; none is skipped"
            )
        return ledger

    def __reduce__(self) -> tuple[Any, tuple[Path]]:
        return type(self).open, (self.directory,)

    def __len__(self) -> int:
        """The number of events."""
        return self._count

    @property
    def settings(self) -> SweepSettings:
        """The settings in force: those of the sweep's creation, with all extensions."""
        return self._settings

    @property
    def slowest_epoch(self) -> float:
        """Seconds of the longest epoch that any row tells of; 0.0 before the first."""
        rows = (row for view in self.trials.values() for row in view.rows.values())
        return max((sum(_finite(row.metrics.get(name)) or 0.0 for name in TIMES) for row in rows), default=0.0)

    @property
    def trained(self) -> int:
        """The number of trials that count against the sweep's total: all except skipped draws."""
        return len(self.trials) - self.standing.states["SKIPPED"]

    def append(self, event: Event) -> None:
        """Make ``event`` durable, then take it in; when this returns, a power cut can't lose it.

        Raises ``ValueError`` for an event that can't follow the ones before (nothing is written),
        ``UserError`` when another driver wrote this event's number or the storage can't take it; from then on
        every call raises the same, for whether the event is there is not known before the ledger is read again.
        """
        if self.refused is not None:
            raise self.refused
        try:
            self._append(event)
        except UserError as error:
            self.refused = error
            raise

    def check_in_place(self, *, now: bool = True) -> None:
        """Raise ``SweepGoneError`` if the sweep was removed, moved or replaced under us; see ``InPlace.check``."""
        self._in_place.check(self.identity, now=now)

    def _append(self, event: Event) -> None:
        if self._count > 0:
            self.check_in_place(now=False)
        target = self._path(self._count)
        envelope = _Envelope(
            sequence=self._count,
            previous=self._previous,
            time=datetime.now(UTC).isoformat(timespec="milliseconds"),
            event=event,
        )
        body = _canonical(_ENVELOPE.dump_python(envelope))
        seal = hashlib.sha256(body).hexdigest()
        checks.numbers(body)
        # What is taken in is what a reader will read, not the object that the caller may still change.
        written = _ENVELOPE.validate_json(body)
        self._refuse_impossible(written)
        content = body[:-1] + f',"sha256":"{seal}"}}\n'.encode()
        temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        name = target if self._store is None else f"{self._store.url}/ledger/{target.name}"
        shared = UserError(f"{name} was written by another process: two drivers share this sweep; stop one")
        if self._store is not None and not self._store.create(f"ledger/{target.name}", content):
            raise shared
        with storing(target):
            if not self._wrote:
                self._remove_leftovers(target.parent)
                self._wrote = True
            try:
                write_file(temporary, content)
                os.link(temporary, target)
            except FileExistsError as error:
                # A mirror's file may have been fetched by a reader between these lines.
                if self._store is None or read_file(target, LARGE_TEXT) != content:
                    raise shared from error
            finally:
                with contextlib.suppress(OSError):  # a disk that is gone or read-only: the first error says so
                    temporary.unlink(missing_ok=True)
            sync_directory(target.parent)
            if self._count > 0:
                try:
                    refuse_gone(self.directory, self.identity)
                except SweepGoneError:  # while this was written: a ledger begins with its first event
                    target.unlink(missing_ok=True)
                    raise
        self._fold(written, seal)
        tail.mark(self.directory, self.identity, self._count, seal)

    def refresh(self) -> list[Event]:
        """Read what others appended since; one failing ``open`` when there is nothing new."""
        events: list[Event] = []
        folder = str(self._path(0).parent)
        while True:
            try:
                # By its text: a Path for each event is a third of the time that a long ledger takes to be read.
                raw = read_file(f"{folder}/{self._count:08d}.json", LARGE_TEXT)
            except FileNotFoundError:
                return events
            except OSError as error:
                raise UserError(f"{self._path(self._count)} can't be read ({error.strerror})") from error
            envelope, seal = self._decode(raw)
            self._fold(envelope, seal)
            events.append(envelope.event)

    def ranked(self, *, include_running: bool = False) -> list[TrialView]:
        """COMPLETE and PRUNED trials with a finite value of the metric: best first, then lower number.

        Those that satisfy the sweep's constraints come before those that don't; with several objectives
        the Pareto rank counts before the metric.
        """
        return list(self.in_order(include_running=include_running))

    def in_order(self, *, include_running: bool = False) -> Iterator[TrialView]:
        """:meth:`ranked`, one by one: for who wants the first few."""
        merits: Iterable[Merit] = self.standing.ranking
        if include_running:
            merits = heapq.merge(merits, sorted(filter(None, map(self._merit, self.standing.running.values()))))
        ranks = self.pareto_ranks()
        if ranks:
            merits = sorted(merits, key=lambda merit: (merit[0], ranks.get(merit[2], math.inf), *merit[1:]))
        return (self.trials[number] for *_, number in merits)

    def _merit(self, trial: TrialView) -> Merit | None:
        """Return the key that ranks ``trial``; None if it is not ranked."""
        metric = self.settings.metric
        best = trial.best(metric) if trial.status in {"COMPLETE", "PRUNED", "RUNNING"} else None
        if best is None or trial.incomparable:
            return None
        value = trial.curve(metric.name)[best.epoch]
        return not self.feasible(trial), value if metric.direction == "minimize" else -value, trial.number

    def point(self, trial: TrialView) -> tuple[float, ...] | None:
        """The objectives at the trial's best row (by the metric: one model, one point); None where one is missing."""
        best = trial.best(self.settings.metric)
        metrics = {} if best is None else best.metrics
        found = [value for target in self.settings.targets if (value := _finite(metrics.get(target.name))) is not None]
        return tuple(found) if len(found) == len(self.settings.targets) else None

    def pareto_ranks(self) -> dict[int, int]:
        """Return the Pareto rank of each COMPLETE trial that satisfies the constraints, by its number; 1 is the front.

        Pruned trials have none: their point is of another budget. Empty for a sweep of one objective.
        """
        points = self.standing.points
        if len(points) != self._fronts[0]:  # a point never changes
            found = dict(zip(points, pareto.ranks(list(points.values()), self.settings.objectives), strict=True))
            self._fronts = len(points), {number: found[number] for number in sorted(found)}
        return self._fronts[1]

    def front(self) -> list[TrialView]:
        """The trials that no other beats in every objective, by the first one; empty for one objective."""
        front = [self.trials[number] for number, rank in self.pareto_ranks().items() if rank == 1]
        return sorted(front, key=lambda trial: (self.point(trial) or (), trial.number))

    def violations(self, trial: TrialView) -> list[float]:
        """Return the violation of each constraint by the trial's best row, at most ``FAR``; 0 or less if it is satisfied."""
        best = trial.best(self.settings.metric)
        metrics = {} if best is None else best.metrics
        return [min(c.violation(_finite(metrics.get(c.metric))), FAR) for c in self.settings.constraints]

    def feasible(self, trial: TrialView) -> bool:
        """Return True if the trial's best row satisfies all constraints."""
        return all(violation <= 0 for violation in self.violations(trial))

    def _path(self, sequence: int) -> Path:
        return self.directory / "ledger" / f"{sequence:08d}.json"

    def _decode(self, raw: bytes) -> tuple[_Envelope, str]:
        """The next event and its sha256 from its file's bytes, every one of which is accounted for."""
        seal = _SEAL.fullmatch(raw[-_SEAL_BYTES:])
        body = raw[:-_SEAL_BYTES] + b"}"
        if seal is None or hashlib.sha256(body).hexdigest() != seal[1].decode():
            raise CorruptFile(
                f"{self._path(self._count)} is damaged (its sha256 does not match): restore it from a copy"
            )
        try:
            checks.numbers(body)
        except ValueError as error:
            raise CorruptFile(
                f"{self._path(self._count)} can't be understood ({error}): restore it from a copy"
            ) from error
        try:
            envelope = _ENVELOPE.validate_json(body)
            self._refuse_impossible(envelope)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(step) for step in first["loc"])[:100]
            raise CorruptFile(
                f"{self._path(self._count)} can't be understood ({place}: {first['msg'][:200]}): another version wrote it"
            ) from error
        except ValueError as error:
            raise CorruptFile(
                f"{self._path(self._count)} does not follow the event before it ({error}): restore it from a copy"
            ) from error
        return envelope, seal[1].decode()

    def _refuse_impossible(self, envelope: _Envelope) -> None:
        """Raise ``ValueError`` for an event that can't come next."""
        event = envelope.event
        if (envelope.sequence, envelope.previous) != (self._count, self._previous):
            raise ValueError(f"event {envelope.sequence} of another ledger")
        if isinstance(event, SweepCreated) != (self._count == 0):
            raise ValueError(f"a ledger begins with its one sweep event; event {self._count} is {event.type!r}")
        match event:
            case TrialCreated() if event.trial in self.trials:
                raise ValueError(f"trial {event.trial} was created twice")
            case RowReported() | RowsReported() | TrialRetried() | TrialFailed() if event.trial not in self.trials:
                raise ValueError(f"trial {event.trial} was never created")
            case RowsReported():
                epochs = [row.epoch for row in event.rows]
                if epochs != sorted(set(epochs)):
                    raise ValueError(f"rows of epochs {str(epochs)[:80]} are not in order")
                if any(row.decision != "continue" for row in event.rows[:-1]):
                    raise ValueError(f"trial {event.trial} has rows after the decision that ends it")

    def _fold(self, envelope: _Envelope, seal: str) -> None:
        event, time = envelope.event, envelope.time
        session = max(len(self.sessions) - 1, 0)
        match event:
            case SweepCreated():
                self.created, self.identity = event, seal
                self._settings = event.settings
                self._comparison = event.settings.comparison
            case SweepExtended():
                self.extended = event
                changes: dict[str, Any] = {"trials": event.trials, "budget": event.budget}
                if event.space is not None:
                    changes["space"] = event.space
                self._settings = dataclasses.replace(self._settings, **changes)
            case TrialsLearned():
                self.learned.append(event)
            case SessionStarted():
                self.sessions.append(event)
                self.spans.append((time, time))
                self.interrupted = None
                self.first_row, self.session_rows = None, 0
            case TrialCreated():
                self.trials[event.trial] = TrialView(event, time, time, session)
                self.standing.begin(self.trials[event.trial])
            case Interrupted():
                self.interrupted = event
            case RowsReported():
                for row in event.each():
                    self._fold_in(row, time, session)
            case _:
                self._fold_in(event, time, session)
        if self.spans and not isinstance(event, SweepExtended):
            self.spans[-1] = (self.spans[-1][0], time)
        self._count, self._previous, self.updated = self._count + 1, seal, time

    def _fold_in(self, event: RowReported | TrialRetried | TrialFailed, time: str, session: int) -> None:
        """Take in what an event of ``time`` says of its trial."""
        view = self.trials[event.trial]
        if isinstance(event, RowReported) and view.incomparable is None and not view.terminal:
            view.incomparable = self._why_incomparable(view, event)
        if view.fold(event, time, session, self._count):
            self._count_in(view, event)
        if isinstance(event, RowReported):
            self.first_row = self.first_row or event.time or time
            self.session_rows += 1

    def _why_incomparable(self, view: TrialView, row: RowReported) -> str | None:
        """Return why a row may not be ranked with the sweep's; None where it may.

        A sweep of an earlier version does not say which facts its rows share: those of its first row count.
        """
        facts = row.comparison or facts_of_recorded(view.created.config, row.metrics)
        if not self._comparison:
            self._comparison = {**facts, "measure": self.settings.measure}
        return self.why_incomparable(facts)

    def why_incomparable(self, facts: Facts) -> str | None:
        """Return why rows with these facts may not be ranked with the sweep's; None where they may."""
        return why_not(self.settings.compared_by, facts, self.comparison)

    @property
    def comparison(self) -> Facts:
        """The facts that all rows of the sweep share (research.ledger.comparison)."""
        return self._comparison or self.settings.shared

    def _count_in(self, view: TrialView, event: RowReported | TrialRetried | TrialFailed) -> None:
        if isinstance(event, RowReported):
            self.standing.row(event, sum(_times(event)))
        if view.terminal:
            fronted = self.settings.objectives and view.status == "COMPLETE" and self.feasible(view)
            self.standing.end(view, self._merit(view), self.point(view) if fronted else None)

    @staticmethod
    def _remove_leftovers(directory: Path) -> None:
        """Clear what a killed writer left; whoever appends holds the sweep's lock."""
        for leftover in directory.glob(".*.tmp"):
            leftover.unlink(missing_ok=True)


def _canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _finite(value: JsonValue) -> float | None:
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    return None


def _times(row: RowReported) -> list[float]:
    return [value for name in TIMES if (value := _finite(row.metrics.get(name))) is not None]

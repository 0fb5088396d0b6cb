"""The sweep's ledger: every event of a sweep, in order, and what follows from them. It is the only source of truth.

The Optuna study, the W&B runs, the kept models and the live table are views, made again from here at will. How the
events lie in files: :mod:`research.ledger.chain`.
"""

from __future__ import annotations

import heapq
import math
from pathlib import Path
from typing import TYPE_CHECKING, Self

from research.errors import CorruptFile, UserError
from research.ledger import pareto, tail
from research.ledger.chain import Chain
from research.ledger.events import (
    Interrupted,
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
from research.ledger.in_force import InForce
from research.ledger.standing import Standing
from research.ledger.trial_view import TrialView, finite, times
from research.text import shell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from research.ledger.chain import Envelope
    from research.ledger.events import Event, Facts
    from research.ledger.settings import SweepSettings
    from research.ledger.standing import Merit
    from research.store.layout import SweepFolder

FAR = 1e9  # by how much a constraint is missed where its metric is missing: JSON has no infinity


class Ledger:
    """The events of one sweep, read and verified, and the views that follow from them.

    One process, the holder of the sweep's lock, appends; any number may follow with ``refresh``.
    Pickles as its path alone and is read again where it is unpickled.
    """

    directory: Path  # the sweep's
    folder: SweepFolder  # the paths in it
    created: SweepCreated
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
        self.refused = None
        self._chain = Chain(self.directory, self._refuse_impossible)
        self.folder = self._chain.folder

    @classmethod
    def create(cls, sweep_dir: str | Path, event: SweepCreated) -> Self:
        """Begin the ledger of a new sweep; its directory may exist, its ledger may not.

        Raises ``UserError`` for a directory that is a sweep already or can't be written.
        """
        ledger = cls(sweep_dir)
        first = ledger._chain.path(0)
        if first.exists():
            raise UserError(
                f"{sweep_dir} holds a sweep: {shell('research', 'resume', sweep_dir)} continues it; or choose another name"
            )
        try:
            first.parent.mkdir(parents=True, exist_ok=True)
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
        chain = ledger._chain
        try:
            names = chain.names()
        except OSError as error:
            raise UserError(
                f"{sweep_dir} is not a sweep directory ({chain.path(0).parent}: {error.strerror})"
            ) from error
        if not names:
            raise UserError(f"{sweep_dir} is not a sweep directory (its ledger is empty)")
        ledger.refresh()
        missing = chain.path(len(chain))
        if missing.name <= max(names):
            raise CorruptFile(
                f"{missing} is missing, events after it are there: restore it from a copy; none is skipped"
            )
        return ledger

    def __reduce__(self) -> tuple[Callable[[Path], Ledger], tuple[Path]]:
        return type(self).open, (self.directory,)

    def __len__(self) -> int:
        """Return the number of events."""
        return len(self._chain)

    @property
    def identity(self) -> str:
        """The sha256 of the first event: tells this sweep from any other of the same name."""
        return self._chain.identity

    @property
    def settings(self) -> SweepSettings:
        """The settings in force: those of the sweep's creation, with all extensions."""
        return self._in_force.settings

    @property
    def slowest_epoch(self) -> float:
        """Seconds of the longest epoch that any row tells of; 0.0 before the first."""
        rows = (row for view in self.trials.values() for row in view.rows.values())
        return max((sum(times(row)) for row in rows), default=0.0)

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
            self._fold(self._chain.write(event))
            tail.mark(self.directory, self.identity, len(self), self._chain.last)
        except UserError as error:
            self.refused = error
            raise

    def check_in_place(self, *, now: bool = True) -> None:
        """Raise ``SweepGoneError`` if the sweep was removed, moved or replaced under us; see ``InPlace.check``."""
        self._chain.check_in_place(now=now)

    def refresh(self) -> list[Event]:
        """Read what others appended since; one failing ``open`` when there is nothing new."""
        events: list[Event] = []
        while (envelope := self._chain.read()) is not None:
            self._fold(envelope)
            events.append(envelope.event)
        return events

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
        found = [value for target in self.settings.targets if (value := finite(metrics.get(target.name))) is not None]
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
        return [min(c.violation(finite(metrics.get(c.metric))), FAR) for c in self.settings.constraints]

    def feasible(self, trial: TrialView) -> bool:
        """Return True if the trial's best row satisfies all constraints."""
        return all(violation <= 0 for violation in self.violations(trial))

    def why_incomparable(self, facts: Facts) -> str | None:
        """Return why rows with these facts may not be ranked with the sweep's; None where they may."""
        return self._in_force.why_incomparable(facts)

    @property
    def comparison(self) -> Facts:
        """The facts that all rows of the sweep share (research.ledger.comparison)."""
        return self._in_force.comparison

    def _refuse_impossible(self, event: Event) -> None:
        """Raise ``ValueError`` for an event of a trial that can't be."""
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

    def _fold(self, envelope: Envelope) -> None:
        """Take in one event."""
        event, time = envelope.event, envelope.time
        match event:
            case SweepCreated():
                self.created = event
                self._in_force = InForce(event.settings)
            case SweepExtended():
                self.extended = event
                self._in_force.extend(event)
            case TrialsLearned():
                self.learned.append(event)
            case SessionStarted():
                self.sessions.append(event)
                self.spans.append((time, time))
                self.interrupted = None
                self.first_row, self.session_rows = None, 0
            case TrialCreated():
                self.trials[event.trial] = TrialView(event, time, time, self._session)
                self.standing.begin(self.trials[event.trial])
            case Interrupted():
                self.interrupted = event
            case RowsReported():
                for row in event.each():
                    self._fold_into_trial(row, time, envelope.sequence)
            case _:
                self._fold_into_trial(event, time, envelope.sequence)
        if self.spans and not isinstance(event, SweepExtended):
            self.spans[-1] = (self.spans[-1][0], time)
        self.updated = time

    @property
    def _session(self) -> int:
        """The index of the latest session."""
        return max(len(self.sessions) - 1, 0)

    def _fold_into_trial(self, event: RowReported | TrialRetried | TrialFailed, time: str, number: int) -> None:
        view = self.trials[event.trial]
        if isinstance(event, RowReported) and view.incomparable is None and not view.terminal:
            view.incomparable = self._in_force.why_row_incomparable(view.created, event)
        if view.fold(event, time, self._session, number):
            self._count_in(view, event)
        if isinstance(event, RowReported):
            self.first_row = self.first_row or event.time or time
            self.session_rows += 1

    def _count_in(self, view: TrialView, event: RowReported | TrialRetried | TrialFailed) -> None:
        if isinstance(event, RowReported):
            self.standing.row(event, sum(times(event)))
        if view.terminal:
            fronted = self.settings.objectives and view.status == "COMPLETE" and self.feasible(view)
            self.standing.end(view, self._merit(view), self.point(view) if fronted else None)

"""The driver of a sweep: it decides what runs, what goes on and what is kept. It knows nothing of Ray."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum, auto
from pathlib import Path
from typing import TYPE_CHECKING

from research import provenance
from research.driver.best_models import keep_best, last_whole
from research.driver.failures import classify, judge, too_many
from research.driver.queue import TrialQueue, visible_below
from research.driver.watchdog import Watchdog
from research.errors import STORAGE, StorageError, UserError
from research.ledger import budget
from research.ledger.comparison import facts_of_recorded
from research.ledger.events import RowReported, RowsReported, TrialFailed, TrialRetried
from research.ledger.settings import rungs
from research.planning.preflight import comparability
from research.search.early_stopping import EarlyStopping, Verdict
from research.search.study import StudyView
from research.store.in_place import SweepGoneError
from research.store.layout import epoch_folder
from research.store.mirror import fetch_pictures, store_of
from research.worker.gpu_memory import device_of
from research.worker.messages import Assignment
from research.worker.notice import Preempted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from research.driver.audience import Audience
    from research.driver.stopping import Stop
    from research.ledger.events import Decision, Facts, RetryCause
    from research.ledger.log import Ledger
    from research.ledger.trial_view import TrialView
    from research.search.spaces import Space, SpaceError
    from research.worker.messages import Report, ReportedRow
    from vae.train_config import TrainConfig


class Turn(Enum):
    """The answer of :meth:`Driver.next` where no trial can start."""

    WAIT = auto()  # a trial that is running has to end first
    FINISHED = auto()  # every trial has ended, or the session is to stop


@dataclass(frozen=True)
class Completed:
    """A worker returned."""


@dataclass(frozen=True)
class Raised:
    """A worker raised ``error`` (None where it cannot be read); ``text`` is its traceback."""

    error: BaseException | None
    text: str = ""


@dataclass(frozen=True)
class Lost:
    """A worker is gone without an exception of its own, for the ``reason`` given."""

    reason: str
    text: str = ""


@dataclass(frozen=True)
class Look:
    """The answer of :meth:`Driver.look`: stuck trials, whose workers are to be ended, and whether trials wait in vain."""

    stuck: list[int]
    without_place: bool


class Driver:
    """Hands out trials, writes their rows with the decisions on them, and keeps the best models.

    Everything is decided from the ledger and written into it before anybody acts on it. An engine calls
    :meth:`next`, :meth:`report`, :meth:`left` and :meth:`look` from one thread, and the session calls :meth:`close`.
    """

    def __init__(
        self,
        ledger: Ledger,
        space: Space,
        live: Audience,
        stop: Stop,
        *,
        study: StudyView | None = None,
        keep: Callable[[Ledger, Path], list[str]] = keep_best,
        why_incomparable: Callable[[TrainConfig], str | None] | None = None,
    ) -> None:
        """Continue the sweep in ``ledger``, whose last event begins this session.

        ``study``: where Optuna's view of the sweep is kept; by default in the sweep's directory. ``keep(ledger,
        directory)`` brings the kept models up to date and returns a line for each problem. ``why_incomparable(config)``
        returns why the rows of a draw could not be ranked with the sweep's; by default the sweep's data are read for it.
        """
        self.ledger = ledger
        self.live = live
        self.stop = stop
        self.keep = keep
        self.problems: list[str] = []
        self.watchdog = Watchdog(ledger.settings.stuck_minutes, slowest=ledger.slowest_epoch)
        self._batches: dict[int, tuple[int, ...]] = {}  # running trials: the trials that share a worker
        self._stuck: set[int] = set()  # trials whose workers the watchdog has ended
        self._continued: dict[int, RowReported | None] = {}  # by retried trial: the row that it continues after
        for view in ledger.trials.values():
            if not view.terminal:
                self._retry(view, "the driver was restarted", "driver")
        self._keep_best()
        self.study = study or StudyView(ledger, ledger.folder.study)
        self.queue = TrialQueue(
            ledger,
            self.study,
            space,
            on_end=self._on_end,
            spent=lambda: budget.spent(ledger) is not None or too_many(ledger) is not None,
            why_incomparable=why_incomparable
            or comparability(dataclasses.replace(ledger.settings, comparison=ledger.comparison)),
        )
        self.stopping = EarlyStopping(ledger, lambda number: visible_below(ledger, number))

    @property
    def problem(self) -> SpaceError | None:
        """Why the space gives no more trials, where that is the space's fault."""
        return self.queue.problem

    @property
    def exhausted(self) -> bool:
        """True if every config of the space was drawn."""
        return self.queue.exhausted

    @property
    def idle(self) -> bool:
        """True if no worker is needed: every trial has ended, and nothing is left to run again."""
        return self.ledger.trained >= self.ledger.settings.trials and not self.queue.todo and not self.queue.last

    def next(self) -> list[Assignment] | Turn:
        """Return the trials for a free worker: one, or up to ``settings.stack`` that train together."""
        if self.stop.asked():
            return Turn.FINISHED
        running = len(set(self._batches.values()))
        if running >= self.ledger.settings.resources.concurrent:
            return Turn.WAIT
        numbers = tuple(self.queue.next())
        if not numbers:
            return Turn.WAIT if running and self.queue.problem is None else Turn.FINISHED
        self._batches |= dict.fromkeys(numbers, numbers)
        return [self._assignment(self.ledger.trials[number]) for number in numbers]

    def report(self, report: Report) -> Decision:
        """Decide on epochs, write their rows with the decisions, and return the last decision.

        The epochs are decided in order. If one ends the trial, those after it get no row. An epoch that is reported again
        gets no second row.
        """
        self.watchdog.row(self._batches.get(report.trial, (report.trial,))[0])
        rows = self._decided(report)
        if rows:
            # Before the rows are written, because W&B's process reads the files as soon as it sees the rows.
            fetch_pictures(self.ledger.directory, [picture for row in rows for picture in row.pictures.values()])
            self.ledger.append(rows[0] if len(rows) == 1 else RowsReported.of(rows))
        for row in rows:
            value = row.metrics.get(self.ledger.settings.metric.name)
            if isinstance(value, int | float):
                self.study.report(row.trial, row.epoch, float(value))
            self.live.row(row)
        status = self.ledger.trials[report.trial].status
        decisions: dict[str, Decision] = {"RUNNING": "continue", "COMPLETE": "complete", "PRUNED": "pruned"}
        return decisions.get(status, "fail")

    def due(self, trials: Iterable[int]) -> dict[int, int]:
        """Return those of ``trials`` that go on, each with the next epoch at which it is decided on.

        That epoch must be reported at once. Epochs before it may be reported together with it.
        """
        views = [view for number in trials if not (view := self.ledger.trials[number]).terminal]
        return {view.number: self.stopping.next_decision(view, _epochs(view)) for view in views}

    def left(self, trials: Sequence[int], how: Completed | Raised | Lost) -> None:
        """Take note that a worker has left the trials that :meth:`next` gave it.

        A trial that has not ended by then has failed, or runs again. When the session is to stop, it stays open.
        """
        for number in trials:
            self._batches.pop(number, None)
        if self.stop.asked():
            return
        try:
            for number in trials:
                self._left(number, how, in_stack=len(trials) > 1)
        except Exception as error:
            if not self.cannot_write(error):
                raise

    def look(self, running: Iterable[int], waiting: int) -> Look:
        """Look for trials that have stopped moving; called about once a second.

        ``running`` are the trials that have a worker, ``waiting`` the number of workers that wait for a place. Where
        the sweep itself is gone, ``ledger.refused`` is set and the session ends.
        """
        if self.gone(now=False):
            return Look([], without_place=False)
        running = list(running)
        self.stop.running = bool(running)
        stuck = self.watchdog.look(running, waiting)
        for number in stuck:
            self._stuck.update(self._batches.get(number, (number,)))
        return Look(stuck, without_place=self.watchdog.no_place())

    def close(self) -> list[str]:
        """Bring the kept models and the study up to date; return a line for each problem of the session."""
        if self.queue.exhausted:
            self.live.note("every config of the space has been tried: nothing new is drawn")
        if not self.gone() and self.ledger.refused is None:  # else the next session does it
            self._keep_best()
        self.queue.tell_rest()
        if self.study.journal.problem is not None:
            self.problems.append(self.study.journal.problem)
        return self.problems

    def gone(self, *, now: bool = True) -> bool:
        """Return True if the sweep was removed or moved; ``ledger.refused`` then says so.

        ``now=False`` accepts an answer of an object store that is some seconds old.
        """
        if isinstance(self.ledger.refused, SweepGoneError):
            return True
        try:
            self.ledger.check_in_place(now=now)
        except SweepGoneError as gone:
            self.ledger.refused = gone
            return True
        except StorageError:  # the store does not answer; the next event says so, if it matters
            return False
        return False

    def cannot_write(self, error: BaseException) -> bool:
        """Return True if ``error`` means that nothing can be written any more; ``ledger.refused`` then ends the session."""
        self.ledger.refused = self.ledger.refused or storage_error(error, self.ledger.directory)
        return self.ledger.refused is not None

    def _decided(self, report: Report) -> list[RowReported]:
        """Return the new rows of a report with the decisions on them, up to the one that ends the trial."""
        # A decision sees the rows before it, which the ledger does not hold yet.
        view = dataclasses.replace(self.ledger.trials[report.trial])
        view.rows = dict(view.rows)
        now = datetime.now(UTC)
        rows = list[RowReported]()
        for each in report.rows:
            if view.terminal or (rows and rows[-1].decision != "continue"):
                break
            if each.epoch in view.rows:
                continue
            facts = report.comparison or facts_of_recorded(view.created.config, each.metrics)
            verdict = self._verdict(view, each, facts, report.epochs)
            row = RowReported(
                trial=report.trial,
                epoch=each.epoch,
                attempt=report.attempt,
                metrics=each.metrics,
                decision=verdict.decision,
                reason=verdict.reason,
                judged=verdict.judged,
                checkpoint=each.checkpoint,
                checkpoint_sha256=each.checkpoint_sha256,
                pictures=each.pictures,
                worker=report.worker,
                comparison=facts,
                time=(now - timedelta(seconds=each.age)).isoformat(timespec="milliseconds"),
            )
            view.rows[each.epoch] = row
            rows.append(row)
        return rows

    def _verdict(self, view: TrialView, row: ReportedRow, facts: Facts, epochs: int) -> Verdict:
        """Decide on a row; ``facts`` say what it may be compared with."""
        if (incomparable := self.ledger.why_incomparable(facts)) is not None:
            return Verdict("fail", incomparable)
        if row.diverged is not None:
            return Verdict("fail", row.diverged)
        settings = self.ledger.settings
        for target in (settings.metric, *settings.objectives):
            if row.metrics.get(target.name) is None:
                return Verdict("fail", f"{target.name} is not finite at epoch {row.epoch}")
        return self.stopping.verdict(view, row.metrics[settings.metric.name], row.epoch, epochs)

    def _left(self, number: int, how: Completed | Raised | Lost, *, in_stack: bool) -> None:
        view = self.ledger.trials[number]
        if not view.terminal:
            if isinstance(how, Completed):
                reason = "the trial returned before its last epoch"
                self.ledger.append(TrialFailed(trial=number, kind="bug", reason=reason))
            elif self._runs_again(view, how, in_stack=in_stack):
                self.queue.again(number)
                return
        self.queue.ended(view)

    def _runs_again(self, view: TrialView, how: Raised | Lost, *, in_stack: bool) -> bool:
        """Write down why a trial's worker ended; return True if the trial is to run again."""
        number, cause = view.number, how.error if isinstance(how, Raised) else None
        if isinstance(cause, StorageError):  # not the trial's fault: the session ends, and the next one goes on with it
            self.ledger.refused = self.ledger.refused or cause
            return True
        if isinstance(cause, Preempted):
            self._retry(view, str(cause), "preempted")
            self.live.note(f"trial {number}: {cause}; it continues from there")
            return True
        stuck = number in self._stuck
        self._stuck.discard(number)
        if in_stack and isinstance(how, Raised) and not stuck:
            # Which member failed is seen when each of them runs in a worker of its own.
            reason = f"its stack failed ({classify(cause)[1]}); it goes on alone"
            self.queue.alone.add(number)
            self._retry(view, reason, "stack")
            self.live.note(f"trial {number}: {reason}")
            return True
        lost = how.reason if isinstance(how, Lost) else None
        verdict = judge(view, cause, lost=lost, stuck=stuck, share=self.ledger.settings.resources.gpus_per_trial)
        if verdict.again is None:
            self.ledger.append(TrialFailed(trial=number, kind=verdict.kind, reason=verdict.reason, detail=how.text))
            return False
        self._retry(view, verdict.reason, verdict.again)
        where = "after the others with a whole GPU, " if view.whole_gpu else ""
        self.live.note(f"trial {number}: {verdict.reason}; it continues {where}from its last checkpoint")
        return True

    def _retry(self, view: TrialView, reason: str, cause: RetryCause) -> None:
        row, damaged = last_whole(self.ledger.directory, view, self.ledger.settings.replicates)
        self._continued[view.number] = row
        if damaged:
            where = "the start" if row is None else f"epoch {row.epoch}"
            told = f"{'; '.join(damaged)}; trained again from {where}"
            reason = f"{reason}; {told}"
            self.live.note(f"trial {view.number}: {told}")
        self.ledger.append(TrialRetried(trial=view.number, attempt=view.attempt + 1, reason=reason, cause=cause))

    def _assignment(self, view: TrialView) -> Assignment:
        settings = self.ledger.settings
        epochs = _epochs(view)
        last = self._continued.get(view.number)
        # The worker reports every epoch from here on, also those that the ledger has already.
        earlier = {epoch: row for epoch, row in view.rows.items() if last is not None and epoch <= last.epoch}
        before = dataclasses.replace(view, rows=earlier)
        best = before.best(settings.metric)
        self.live.started(before)
        return Assignment(
            sweep_dir=str(self.ledger.directory),
            storage=None if (store := store_of(self.ledger.directory)) is None else store.url,
            trial=view.number,
            attempt=view.attempt,
            config=dict(view.created.config),
            replicates=settings.replicates,
            metric=settings.metric,
            objectives=[objective.name for objective in settings.objectives],
            threads=settings.resources.threads,
            device=device_of(settings.resources),
            gpus=1.0 if view.whole_gpu else settings.resources.gpus_per_trial,
            source_sha256=provenance.running_sha256(),
            data_dir=settings.data_dir,
            data_hash=settings.data_hash,
            split_hash=settings.split_hash,
            picture_epochs=[*rungs(settings.scheduler, epochs, view.number), epochs],
            resume_from=None if last is None else last.checkpoint,
            resume_sha256=None if last is None else last.checkpoint_sha256,
            again={
                epoch: epoch_folder(row.checkpoint, settings.replicates)
                for epoch, row in view.rows.items()
                if epoch not in earlier and row.checkpoint
            },
            last_epoch=max(view.rows, default=0),
            due=self.stopping.next_decision(before, epochs),
            report_seconds=settings.report_seconds,
            stop_file=None if self.stop.file is None else str(self.stop.file),
            best_checkpoint=None if best is None else best.checkpoint,
            best_value=None if best is None else before.curve(settings.metric.name)[best.epoch],
        )

    def _on_end(self, view: TrialView) -> None:
        self._keep_best()
        self.live.ended(view)

    def _keep_best(self) -> None:
        if self.gone(now=False):
            return
        for problem in self.keep(self.ledger, self.ledger.directory):
            if problem not in self.problems:
                self.problems.append(problem)


def _epochs(view: TrialView) -> int:
    """Return the full budget of a trial."""
    epochs = view.created.config["epochs"]
    assert isinstance(epochs, int), "the config was validated when the trial was drawn"
    return epochs


def storage_error(error: BaseException, sweep_dir: Path) -> UserError | None:
    """Return the failed write behind ``error``, with its path, or None if there is none.

    Tune wraps the exceptions of its hooks, so that the cause is looked for.
    """
    cause: BaseException | None = error
    seen = set[int]()
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))  # causes can form a circle
        if isinstance(cause, StorageError):
            return cause
        if isinstance(cause, OSError) and cause.errno in STORAGE:
            # The system may name no file for a failed write. It was on that of the two disks which has less room.
            places = [place for place in (sweep_dir, Path(tempfile.gettempdir())) if place.exists()]
            where = cause.filename or min(places, key=lambda place: shutil.disk_usage(place).free)
            return StorageError(f"{where} can't be written ({cause.strerror}): mend that, then resume")
        cause = cause.__cause__ or cause.__context__
    return None

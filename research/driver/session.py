"""A sweep: from its settings to Ray Tune, and what the driver does around it."""

from __future__ import annotations

import dataclasses
import logging
import os
import shutil
import signal
import tempfile
import time
import traceback
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray import cloudpickle, tune
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.tune.execution import class_cache

from research import provenance
from research.driver.best_models import keep_best, last_whole
from research.driver.failures import classify, judge, too_many
from research.driver.stopping import Stop, signals
from research.driver.watchdog import Watchdog
from research.errors import STORAGE, StorageError, UserError, storing
from research.ledger import budget
from research.ledger.log import (
    Interrupted,
    Ledger,
    RowReported,
    SessionStarted,
    SweepCreated,
    TrialFailed,
    TrialRetried,
)
from research.ledger.settings import rungs
from research.ledger.tail import refuse_lost_tail
from research.on_ray.capacity import addable_nodes, await_nodes, check_capacity, cluster_nodes, no_place
from research.on_ray.joined import joined_ray
from research.on_ray.local import asks_for_token, private_ray
from research.on_ray.starting import RayDidNotStart, StoppedWhileStarting
from research.on_ray.stuck_worker import end_worker
from research.on_ray.tune_scheduler import LedgerScheduler
from research.on_ray.tune_searcher import LedgerSearcher
from research.on_ray.watch import RayLostError, watched_ray
from research.planning.preflight import comparability
from research.search.spaces import Space, load_recorded, of_sweep
from research.search.study import StudyView
from research.store.data_copy import data_directory
from research.store.in_place import SweepGoneError, remove_empty
from research.store.layout import epoch_folder
from research.store.lease import Lease
from research.store.lock import SweepLock
from research.store.mirror import address as address_of
from research.store.mirror import follow, store_of
from research.text import shell
from research.tracking.sink import Sink
from research.worker.ended_trials import EndedTrials
from research.worker.gpu_memory import device_of
from research.worker.notice import Preempted
from research.worker.trial import ASSIGNMENTS, Assignment, TrialWorker
from vae.data import load_training
from vae.durable import sync_directory
from vae.external import PATH_VARIABLE, search_path, source_of
from vae.serialization import from_record

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ray.tune.experiment import Trial

    from research.driver.audience import Audience
    from research.ledger.events import RetryCause
    from research.ledger.log import TrialsLearned, TrialView
    from research.ledger.settings import Resources, SweepSettings

SPACE_COPY = "space.py"
RAY = "ray"  # Tune's scratch files, never read; there while a session is at work, or when one was cut short


@dataclass(frozen=True)
class Outcome:
    """How a session ended: by which signal, budget or failures, if any, and what could not be done beside the training."""

    signal: int | None
    budget: str | None
    lost: str | None  # that Ray is gone, in words
    failing: str | None  # so many failures in a row that nothing more was started
    problems: list[str]


def create(
    sweep_dir: Path, settings: SweepSettings, command: list[str], learned: Sequence[TrialsLearned] = ()
) -> Ledger:
    """Begin a sweep's directory: its ledger's first event, its space's source, what its sampler learns from.

    On a disk it is there whole or not at all, whenever this is killed; of two that begin it at once one is refused.

    Raises:
        UserError: there is such a sweep.

    """
    place = sweep_dir
    if store_of(sweep_dir) is None:
        place = sweep_dir.with_name(f".{sweep_dir.name}.{os.getpid()}.tmp")
        shutil.rmtree(place, ignore_errors=True)
    with storing(sweep_dir):
        place.mkdir(parents=True)
    try:
        ledger = Ledger.create(
            place,
            SweepCreated(settings=settings, code=provenance.code(), versions=provenance.versions(), command=command),
        )
        for event in learned:
            ledger.append(event)
        with storing(place / SPACE_COPY):
            (place / SPACE_COPY).write_text(settings.space.source, encoding="utf-8")
        if place == sweep_dir:
            return ledger
        if sweep_dir.exists():
            raise UserError(f"sweep {str(sweep_dir)!r} exists already: begun a moment ago; choose another --name")
        with storing(sweep_dir):
            place.rename(sweep_dir)
            sync_directory(sweep_dir.parent)
    finally:
        if place != sweep_dir:
            shutil.rmtree(place, ignore_errors=True)
    return Ledger.open(sweep_dir)


def reopen(sweep_dir: Path, *, allow_changed_code: bool) -> tuple[Ledger, Space]:
    """A sweep to be continued, and its space.

    Raises:
        UserError: nothing is left to do, or code or data are not what the sweep was begun with.

    """
    ledger = Ledger.open(sweep_dir)
    refuse_lost_tail(ledger)
    settings, place = ledger.settings, address_of(sweep_dir)
    open_trials = [view for view in ledger.trials.values() if not view.terminal]
    # A driver that was killed at its last act has left views behind that are not the ledger's: those are still to do.
    cut_short = (sweep_dir / RAY).exists()
    if ledger.trained >= settings.trials and not open_trials and not cut_short:
        raise UserError(
            f"sweep {place!r} has ended all its {settings.trials} trials: nothing to resume; "
            f"{shell('research', 'extend', place)} --trials +N adds some"
        )
    reached = [limit for limit in budget.limits(ledger) if limit.reached]
    if reached and (not open_trials or reached[0].option == "--hours") and not cut_short:
        raise UserError(
            f"sweep {place!r} has spent its budget ({reached[0].option}: {reached[0]}): "
            f"{shell('research', 'extend', place)} {reached[0].option} adds to it"
        )
    check_code(ledger, allow_changed_code=allow_changed_code)
    space = of_sweep(load_recorded(settings.space, sweep_dir / SPACE_COPY), ledger)
    if ledger.trials:
        config = from_record(next(view.created.config for view in ledger.trials.values() if view.created.config))
        data = load_training(config.data, data_directory(settings.data_dir))
        if (data.data_hash, data.split_hash) != (settings.data_hash, settings.split_hash):
            raise UserError(
                f"the data have changed since sweep {settings.name!r} began ({settings.data_hash[:12]} -> "
                f"{data.data_hash[:12]}): its trials would not compare; put the old files back, or start a new sweep"
            )
    return ledger, space


def check_code(ledger: Ledger, *, allow_changed_code: bool) -> None:
    """Refuse to go on with other code than the sweep was begun with, external parts included. Nothing of it runs.

    Raises:
        UserError: with both hashes, or the part that has changed.

    """
    began = ledger.created.code.get("source_sha256")
    now = provenance.code().get("source_sha256")
    if began != now and not allow_changed_code:
        raise UserError(
            f"the code has changed since sweep {ledger.settings.name!r} began ({str(began)[:12]} -> {str(now)[:12]}): its "
            "trials would not compare; go back to that code, or add --allow-changed-code"
        )
    if not allow_changed_code:
        _refuse_changed_externals(ledger)


def _refuse_changed_externals(ledger: Ledger) -> None:
    """Refuse external parts that are not what ran: their hashes are in the rows. None of them is imported here."""
    for view in ledger.trials.values():
        for row in view.rows.values():
            ran = row.worker.get("external")
            for path, digest in ran.items() if isinstance(ran, dict) else ():
                if source_of(path) != digest:
                    raise UserError(
                        f"external part {path!r} has changed since trial {view.number} ran: trials would not compare; "
                        "go back to that code, or add --allow-changed-code"
                    )
            break


def check_cluster(address: str | None, resources: Resources) -> None:
    """Refuse a trial that the cluster at ``address`` can never give a place; without one nothing is asked.

    Raises:
        UserError: with what is asked and what there is.

    """
    if address is not None:
        with _ray(address, resources):
            addable = addable_nodes()
            if addable == []:
                await_nodes()
            check_capacity(resources, cluster_nodes(), addable)


def run(ledger: Ledger, space: Space, live: Audience, *, address: str | None = None) -> Outcome:
    """One driver session: run what the ledger says is left, until it is done or somebody asks to stop."""
    stop = Stop(ledger)
    with SweepLock(ledger.directory), Lease(ledger.directory), signals(stop):
        # Read again under the lock: another driver may have gone on between our reading and our locking.
        follow(ledger.directory)
        ledger.refresh()
        session = _Session(ledger, space, live, stop)
        try:
            session.run(address)
        except StoppedWhileStarting:
            pass  # the signal is in ``stop``
        except RayDidNotStart as error:
            raise _with_the_way_on(ledger, error) from None
        except RayLostError:
            ledger.refresh()  # it may have come between an event's file and our taking it in
        except SystemExit as error:
            if error.code != signal.SIGTERM:  # Ray's way of taking a SIGTERM while it starts
                raise
            stop.signal = signal.SIGTERM
        except Exception as error:
            if ledger.refused is None:
                ledger.refused = _storage_error(error, ledger.directory)
            if ledger.refused is None:
                raise
        finally:
            session.finish()
        if ledger.refused is not None:  # Tune takes an exception in its hooks for the trial's
            raise _with_the_way_on(ledger, ledger.refused)
        ended_by = session.stop.budget or budget.spent(ledger)
        open_ends = ledger.trained < ledger.settings.trials and not session.searcher.exhausted
        failing = too_many(ledger) if open_ends else None
        return Outcome(stop.signal, ended_by, stop.lost, failing, session.problems)


def _with_the_way_on(ledger: Ledger, refused: UserError) -> UserError:
    if isinstance(refused, StorageError | RayDidNotStart):
        return type(refused)(f"{refused}: {shell('research', 'resume', address_of(ledger.directory))}")
    return refused


class _Session:
    """What the hooks of searcher, scheduler and callback share while one driver runs."""

    def __init__(self, ledger: Ledger, space: Space, live: Audience, stop: Stop) -> None:
        self.ledger = ledger
        self.live = live
        self.stop = stop
        self.ray_dir = ledger.directory / RAY
        self.ray_dir.mkdir(exist_ok=True)
        settings = ledger.settings
        if settings.replicates == settings.stack == 1 and store_of(ledger.directory) is None:
            stop.file = self.ray_dir / f"stop-{len(ledger.sessions)}"  # another's may have been left there
        self.problems: list[str] = []
        # By trial: the exception, its text, and whether the trial was in a stack.
        self.errors: dict[int, tuple[BaseException | None, str, bool]] = {}
        self.stuck: set[int] = set()  # trials whose workers the watchdog has ended
        self.watchdog = Watchdog(ledger.settings.stuck_minutes, slowest=ledger.slowest_epoch)
        self.ended: EndedTrials | None = None  # what a stack's worker asks
        ledger.append(
            SessionStarted(
                generation=len(ledger.sessions),
                pid=os.getpid(),
                host=os.uname().nodename,
                code=provenance.code(),
                versions=provenance.versions(),
                hardware=provenance.hardware(),
            )
        )
        diff = provenance.diff_text()
        if diff:
            name = f"code-{len(ledger.sessions) - 1}.diff"
            with storing(ledger.directory / name):
                (ledger.directory / name).write_text(diff, encoding="utf-8")
            if (store := store_of(ledger.directory)) is not None:
                store.write(name, diff.encode())
        self.continued: dict[int, RowReported | None] = {}  # the row that a retried trial continues after, by trial
        for view in ledger.trials.values():
            if not view.terminal:
                self._retry(view, "the driver was restarted", "driver")
        self._reconcile()
        self.study = StudyView(ledger, ledger.directory / "study.journal")
        self.searcher = LedgerSearcher(
            ledger,
            self.study,
            space,
            assign=self._assign,
            on_end=self._on_end,
            ended_with_error=self._ended_with_error,
            stopping=self.stop.asked,
            on_failure=self._on_failure,
            spent=lambda: budget.spent(ledger) is not None or too_many(ledger) is not None,
            why_incomparable=comparability(dataclasses.replace(ledger.settings, comparison=ledger.comparison)),
        )
        self.scheduler = LedgerScheduler(
            ledger,
            numbers_of=lambda trial: trial.config["trials"],
            visible_below=self.searcher.visible_below,
            on_row=self._on_row,
            on_error=self._on_error,
        )
        self.sink = Sink.start(ledger.directory, ledger.settings.wandb)

    def run(self, address: str | None) -> None:
        """Tune's loop, from ``ray.init`` to the last trial."""
        if self.ledger.trained >= self.ledger.settings.trials and not self.searcher.todo:
            return  # what is left to do needs no worker
        if self.stop.asked():
            return
        resources = self.ledger.settings.resources
        with _ray(address, resources, self.stop), watched_ray(address, self.stop):
            if not asks_for_token():
                self.live.note(
                    f"the Ray cluster at {address} asks for no token: whoever reaches it can run code as you"
                )
            if self.ledger.settings.stack > 1:
                self.ended = EndedTrials()
            # Over the live view it prints each failed trial's traceback (that is in the ledger, and its line is shown), one
            # when it can't write its own state (which is never read), and which trials did not end (the summary says so).
            for module in ("execution.tune_controller", "execution.experiment_state", "tune"):
                logging.getLogger(f"ray.tune.{module}").setLevel(logging.CRITICAL)
            # It would put AWS keys into a runtime environment, which Ray logs and shows. Workers of a Ray of our own
            # inherit them; a cluster's nodes have theirs. With a variable for PyTorch Lightning in it (not used here) the
            # workers that Ray has ready would not do, and others be started.
            class_cache.DEFAULT_ENV_VARS.clear()
            class_cache.ENV_VARS_TO_PROPAGATE -= {
                name for name in class_cache.ENV_VARS_TO_PROPAGATE if name.startswith("AWS_")
            }
            tune.Tuner(
                TrialWorker,
                tune_config=tune.TuneConfig(
                    search_alg=self.searcher,
                    scheduler=self.scheduler,
                    num_samples=-1,
                    reuse_actors=True,
                    trial_name_creator=_tune_name,
                    trial_dirname_creator=_tune_name,
                ),
                run_config=tune.RunConfig(
                    # A new folder for each session: Tune's own state is never read again, so it must never mix.
                    name=f"session-{len(self.ledger.sessions) - 1}",
                    storage_path=str(self.ray_dir),
                    failure_config=tune.FailureConfig(max_failures=0),  # lost workers are this file's business
                    callbacks=[_Between(self)],
                    stop=self.stop,
                    verbose=0,
                ),
            ).fit()
        if self.searcher.problem is not None:
            raise self.searcher.problem

    def finish(self) -> None:
        """Bring every view up to the ledger; say what could not be."""
        if self.ledger.refused is not None:
            pass
        elif self.stop.signal is not None:
            self.ledger.append(Interrupted(reason=signal.Signals(self.stop.signal).name))
        elif self.stop.lost is not None:
            self.ledger.append(Interrupted(reason=self.stop.lost))
        elif self.stop.budget is not None:
            self.ledger.append(Interrupted(reason=self.stop.budget))
        if self.searcher.exhausted:
            self.live.note("every config of the space has been tried: nothing new is drawn")
        if not self._gone() and self.ledger.refused is None:  # else the next session does it
            self._reconcile()
        self.searcher.tell_rest()
        if self.study.journal.problem is not None:
            self.problems.append(self.study.journal.problem)
        if self._gone():
            self.sink.abandon()
        else:
            self.live.note("finishing W&B files")
            self.problems += self.sink.close()
        self.live.close()
        shutil.rmtree(self.ray_dir, ignore_errors=True)
        if self._gone():
            remove_empty(self.ledger.directory)

    def _gone(self, *, now: bool = True) -> bool:
        """Whether the sweep was removed or moved: the session ends, and that is why."""
        if isinstance(self.ledger.refused, SweepGoneError):
            return True
        try:
            self.ledger.check_in_place(now=now)
        except SweepGoneError as gone:
            self.ledger.refused = gone
            return True
        except StorageError:  # the store does not answer: the next event says so, if it matters
            return False
        return False

    def _assign(self, views: list[TrialView]) -> dict[str, Any]:
        assignments = [self._assignment(view) for view in views]
        return {
            "trials": [view.number for view in views],
            "cpus": self.ledger.settings.resources.cpus_per_trial,
            "gpus": assignments[0].gpus,
            "assignments": ASSIGNMENTS.dump_json(assignments).decode(),
        }

    def _assignment(self, view: TrialView) -> Assignment:
        settings = self.ledger.settings
        epochs = view.created.config["epochs"]
        assert isinstance(epochs, int)
        last = self.continued.get(view.number)
        # The worker's rows count as told from here on, those that the ledger has already included.
        earlier = {epoch: row for epoch, row in view.rows.items() if last is not None and epoch <= last.epoch}
        before = dataclasses.replace(view, rows=earlier)
        best = before.best(settings.metric)
        gpus = 1.0 if view.whole_gpu else settings.resources.gpus_per_trial
        self.live.started(before)
        return Assignment(
            sweep_dir=str(self.ledger.directory),
            storage=None if (store := store_of(self.ledger.directory)) is None else store.url,
            trial=view.number,
            attempt=view.attempt,
            config=dict(view.created.config),
            replicates=settings.replicates,
            metric=settings.metric,
            threads=settings.resources.threads,
            device=device_of(settings.resources),
            gpus=gpus,
            source_sha256=provenance.running_sha256(),
            data_dir=settings.data_dir,
            data_hash=settings.data_hash,
            split_hash=settings.split_hash,
            picture_epochs=[*rungs(settings.scheduler, epochs, view.number), epochs],
            resume_from=None if last is None else last.checkpoint,
            resume_sha256=None if last is None else last.checkpoint_sha256,
            again={e: self._folder_of(r.checkpoint) for e, r in view.rows.items() if e not in earlier and r.checkpoint},
            stop_file=None if self.stop.file is None else str(self.stop.file),
            best_checkpoint=None if best is None else best.checkpoint,
            best_value=None if best is None else before.curve(settings.metric.name)[best.epoch],
        )

    def _folder_of(self, checkpoint: str) -> str:
        return epoch_folder(checkpoint, self.ledger.settings.replicates)

    def _on_row(self, row: RowReported) -> None:
        value = row.metrics.get(self.ledger.settings.metric.name)
        if isinstance(value, int | float):
            self.study.report(row.trial, row.epoch, float(value))
        self.live.row(row)
        if self.ended is not None and self.ledger.trials[row.trial].terminal:
            self.ended.add(row.trial)

    def _on_end(self, view: TrialView) -> None:
        self._reconcile()
        self.live.ended(view)

    def _on_error(self, trial: Trial) -> None:
        """Tune tells the scheduler first, and only here is the exception to be had."""
        error: BaseException | None = None
        text = ""
        try:
            # Written by Tune's driver, this process, moments ago: not a file that anybody hands us.
            error = cloudpickle.loads(Path(trial.pickled_error_file).read_bytes())
            text = "".join(traceback.format_exception(error))
        except (OSError, TypeError, ValueError, EOFError) as unreadable:
            text = f"the worker's exception can't be read: {unreadable}"
        # It may quote a secret. The ledger has it without; these would stay where the driver is killed.
        for file in (trial.pickled_error_file, trial.error_file):
            if file is not None:
                Path(file).unlink(missing_ok=True)
        trial.run_metadata.pickled_error_filename = trial.run_metadata.error_filename = None
        numbers = trial.config["trials"]
        for number in numbers:
            self.errors[number] = (error, text, len(numbers) > 1)

    def _ended_with_error(self, number: int) -> bool:
        """Write down why a trial's worker ended. True when it was lost and the trial is to run again."""
        view = self.ledger.trials[number]
        error, text, in_stack = self.errors.pop(number, (None, "", False))
        cause = error.cause if isinstance(error, RayTaskError) else error
        if isinstance(cause, StorageError):  # not the trial's fault: the session ends, the trial goes on at the next
            self.ledger.refused = self.ledger.refused or cause
            return True
        if isinstance(cause, Preempted):
            self._retry(view, str(cause), "preempted")
            self.live.note(f"trial {number}: {cause}; it continues from there")
            return True
        lost = None
        if isinstance(error, RayError) and not isinstance(error, RayTaskError):
            died = isinstance(error, RayActorError)
            lost = "the worker died" if died else f"the worker was lost ({type(error).__name__})"
        stuck = number in self.stuck
        self.stuck.discard(number)
        share = self.ledger.settings.resources.gpus_per_trial
        if in_stack and lost is None and not stuck:
            # Whose fault it was is seen when each runs by itself.
            reason = f"its stack failed ({classify(cause)[1]}); it goes on alone"
            self.searcher.alone.add(number)
            self._retry(view, reason, "stack")
            self.live.note(f"trial {number}: {reason}")
            return True
        verdict = judge(view, cause, lost=lost, stuck=stuck, share=share)
        if verdict.again is None:
            self.ledger.append(TrialFailed(trial=number, kind=verdict.kind, reason=verdict.reason, detail=text))
            return False
        self._retry(view, verdict.reason, verdict.again)
        how = "after the others with a whole GPU, " if view.whole_gpu else ""
        self.live.note(f"trial {number}: {verdict.reason}; it continues {how}from its last checkpoint")
        return True

    def _on_failure(self, error: Exception) -> bool:
        self.ledger.refused = self.ledger.refused or _storage_error(error, self.ledger.directory)
        return self.ledger.refused is not None

    def _retry(self, view: TrialView, reason: str, cause: RetryCause) -> None:
        row, damaged = last_whole(self.ledger.directory, view, self.ledger.settings.replicates)
        self.continued[view.number] = row
        if damaged:
            where = "the start" if row is None else f"epoch {row.epoch}"
            told = f"{'; '.join(damaged)}; trained again from {where}"
            reason = f"{reason}; {told}"
            self.live.note(f"trial {view.number}: {told}")
        self.ledger.append(TrialRetried(trial=view.number, attempt=view.attempt + 1, reason=reason, cause=cause))

    def look(self, trials: list[Trial]) -> None:
        """Between two of Tune's events: end the workers of trials that are stuck, say when nobody has a place.

        Nothing is looked after of a sweep that is gone: with ``ledger.refused`` set, Tune's loop ends.
        """
        if self._gone(now=False):
            return
        running = {trial.config["trials"][0]: trial for trial in trials if trial.status == "RUNNING"}
        self.stop.running = bool(running)
        waiting = sum(trial.status == "PENDING" for trial in trials)
        for number in self.watchdog.look(running, waiting):
            actor = running[number].temporary_state.ray_actor
            if actor is not None:
                self.stuck.update(running[number].config["trials"])
                end_worker(actor)  # Tune hears of it as of any lost worker
        if self.watchdog.no_place():
            self.live.note(no_place(self.ledger.settings.resources))

    def _reconcile(self) -> None:
        if self._gone(now=False):
            return
        for problem in keep_best(self.ledger, self.ledger.directory):
            if problem not in self.problems:
                self.problems.append(problem)


def _storage_error(error: BaseException, sweep_dir: Path) -> UserError | None:
    """What kept us from writing, where that is behind ``error`` (Tune makes of it one of its own), by its path."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, StorageError):
            return cause
        if isinstance(cause, OSError) and cause.errno in STORAGE:
            # Of a failed write the system may name no file: it was on the one of the two disks that has less room.
            places = [place for place in (sweep_dir, Path(tempfile.gettempdir())) if place.exists()]
            where = cause.filename or min(places, key=lambda place: shutil.disk_usage(place).free)
            return StorageError(f"{where} can't be written ({cause.strerror}): mend that, then resume")
        cause = cause.__cause__ or cause.__context__
    return None


def _tune_name(trial: Trial) -> str:
    return f"trial-{trial.config['trials'][0]:04d}-{trial.trial_id}"


class _Between(tune.Callback):
    """What the driver does between Tune's events: draws the live view, looks after trials that have stopped moving."""

    def __init__(self, session: _Session) -> None:
        self.session = session
        self.looked = 0.0

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:  # noqa: ANN401 - Tune's signature
        """It is at work from now on, not from the next look: a stop within that second has something to save."""
        del iteration, trials, trial, info
        self.session.stop.running = True

    def on_trial_result(
        self,
        iteration: int,
        trials: list[Trial],
        trial: Trial,
        result: dict[str, Any],
        **info: Any,  # noqa: ANN401 - Tune's signature
    ) -> None:
        """Any report is a sign of life, that of an epoch which the ledger has already, too."""
        del iteration, trials, result, info
        self.session.watchdog.row(trial.config["trials"][0])

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:  # noqa: ANN401 - Tune's signature
        del iteration, info
        self.session.live.refresh()
        if time.monotonic() - self.looked >= 1.0:  # the list grows with the sweep
            self.looked = time.monotonic()
            self.session.look(trials)


@contextmanager
def _ray(address: str | None, resources: Resources, stop: Stop | None = None) -> Iterator[None]:
    """A Ray of this process's own, or a connection to the one at ``address``. ``stop`` ends a start that takes long."""
    # Threads are decided before any worker imports torch: N workers with torch's default of all cores each lose
    # a factor of 14 on two cores. PASSIVE: waiting threads sleep.
    variables = {
        "OMP_NUM_THREADS": str(resources.threads),
        "MKL_NUM_THREADS": str(resources.threads),
        "OMP_WAIT_POLICY": "PASSIVE",
        # Parts from outside the tree are found by workers where the driver found them.
        PATH_VARIABLE: os.pathsep.join(str(folder) for folder in search_path()),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_IGNORE_UNHANDLED_ERRORS": "1",  # of a worker whose result nobody waits for any more: a traceback on the screen
        "RAY_AIR_NEW_OUTPUT": "0",  # Tune prints nothing: the live view is ours
        # With a searcher Tune starts one worker at a time by default: all slots' workers are to start together.
        "TUNE_MAX_PENDING_TRIALS_PG": str(resources.concurrent),
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
        "TUNE_DISABLE_SIGINT_HANDLER": "1",
    }
    os.environ |= variables
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with private_ray(stop, **quiet) if address is None else joined_ray(address, variables, **quiet):
        # Ray puts a handler of its own on SIGTERM, which aborts the process with nothing written down.
        for number, handler in handlers.items():
            signal.signal(number, handler)
        yield

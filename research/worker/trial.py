"""A trial on a worker: it trains with ``vae.train`` and reports its epochs and checkpoints to the driver.

An epoch is reported at once where the driver decides on the trial. Other epochs are reported together, about once a second,
with one checkpoint, because a run can be trained again from any checkpoint to the same bits.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import time
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import torch

from research.errors import storing
from research.provenance import running_sha256
from research.store.data_copy import data_directory
from research.store.in_place import make_below, refuse_gone
from research.store.layout import NAMES, epoch_folder, replicate_folder
from research.store.mirror import Workplace
from research.worker import notice
from research.worker.comparison import facts_of
from research.worker.gpu_memory import limit_memory
from research.worker.messages import Report, ReportedRow, TrialsEnded
from research.worker.pictures import draw_pictures
from research.worker.replicates import Together, train_together
from research.worker.rows import describe_worker, finite
from vae.data import TrainingData, load_training
from vae.data.dataset import DataError
from vae.durable import read_file
from vae.fast.stackable import groups, why_not
from vae.fast.stacked import train_stacked
from vae.pause import Paused
from vae.serialization import config_hash, from_record
from vae.state import INFO_FILE, StateError, TrainState
from vae.system.user_code import end_copy, user_code

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

    from research.ledger.events import Facts
    from research.worker.messages import Assignment, Channel
    from vae.fast.stacked import Results
    from vae.pause import Asked
    from vae.train_config import TrainConfig


PARTS = "a part of the config"
_SHARE = 20  # epochs wait for at least this many times as long as the last report took
_LONGEST = 10  # and at most this many times as long as the sweep asks for


def run_trials(tasks: list[Assignment], channel: Channel) -> None:
    """Train the trials of ``tasks`` and hand each epoch to ``channel``; return when they have ended.

    Several trials are trained as a stack, as far as their configs allow it. Those that cannot be stacked are trained
    one after the other.

    Raises:
        Preempted: training paused, and its state was saved. Any other exception is the trial's failure.

    """
    with contextlib.suppress(TrialsEnded), user_code(PARTS):
        _run(tasks, channel)


def _run(tasks: list[Assignment], channel: Channel) -> None:
    # The process has run other trials and will run more: everything that lasts is set here, at each start.
    torch.set_num_threads(tasks[0].threads)
    limit_memory(tasks[0].device, tasks[0].gpus)
    if (here := running_sha256()) != tasks[0].source_sha256:
        raise RuntimeError(
            f"the code on {socket.gethostname()} is not the driver's ({here[:12]}, not {tasks[0].source_sha256[:12]}): "
            "install the same on every node"
        )
    configs = [from_record(task.config) for task in tasks]
    place = Workplace(tasks[0].sweep_dir, tasks[0].storage)  # one for all: each new one empties the process's scratch
    for group in groups(configs, tasks[0].device):
        # Members of a stack are reported in events of their own. A driver that is killed between them must not leave them
        # several epochs apart, because they would continue in stacks of other sizes, equal only to rounding.
        reporting = _Reporting(channel, tasks[group[0]].report_seconds if len(group) == 1 else 0.0)
        trials = [_Trial(tasks[position], configs[position], place, reporting) for position in group]
        if len(trials) > 1:
            _train_stack(trials)
            continue
        if len(tasks) > 1:
            others = [other for position, other in enumerate(configs) if position != group[0]]
            reason = next(filter(None, (why_not([configs[group[0]], other], tasks[0].device) for other in others)))
            trials[0].worker["stack"] = {"alone": reason}
        _train_alone(trials[0], among_others=len(tasks) > 1)


def _train_alone(trial: _Trial, *, among_others: bool) -> None:
    """Train one trial; ``among_others``: the worker has other trials to train after the driver ends this one.

    Raises:
        Preempted: the worker was told to end.

    """
    task = trial.task
    if task.replicates > 1:
        _train(trial, among_others=among_others, pause=None)
        return
    trial.take_up_pause()
    with notice.heard():
        try:
            _train(trial, among_others=among_others, pause=lambda: notice.told() or trial.channel.pause_requested())
        except Paused as paused:
            trial.save_pause(paused.state)
            trial.reporting.now()
            why = "the worker was told to end (SIGTERM)" if notice.told() else "the sweep stops"
            where = f"saved after step {paused.state.step}, in epoch {paused.state.epoch + 1}"
            raise notice.Preempted(f"{why}; {where}") from None


def _train(trial: _Trial, *, among_others: bool, pause: Asked | None) -> None:
    task = trial.task
    epochs = train_together(
        trial.config,
        trial.data,
        task.replicates,
        metric=task.metric.name,
        resume=trial.resume,
        device=task.device,
        pause=pause,
    )
    with trial.reporting.nothing_lost():
        for together in epochs:
            if together.stacked:
                trial.worker["stack"] = {"replicates": task.replicates}
            trial.take(together)
            trial.reporting.when_due()
            if among_others and not trial.goes_on:
                return


def _train_stack(trials: list[_Trial]) -> None:
    numbers = [trial.task.trial for trial in trials]
    epochs = train_stacked(
        [trial.config for trial in trials],
        trials[0].data,
        [None if trial.resume is None else trial.resume[0] for trial in trials],
        trials[0].task.device,
    )
    reporting = trials[0].reporting
    ended: set[int] | None = None
    with reporting.nothing_lost():
        while (results := _next(epochs, ended)) is not None:
            now = [numbers[each] for each in results]
            for position, result in results.items():
                trial = trials[position]
                trial.worker["stack"] = {"members": now, "position": now.index(trial.task.trial)}
                trial.take(Together(finite(result.row), [result], 0, result.diverged))
            # The next epochs are of another stack once a member leaves: its rows say so.
            leaves = any(trials[each].at_the_end for each in results)
            reporting.when_due(at_once=leaves)
            ended = {position for position in results if not trials[position].goes_on}


class _Reporting:
    """Hands the epochs of a worker's trials to the driver: at once where it decides, else together after some time."""

    def __init__(self, channel: Channel, seconds: float) -> None:
        self.channel = channel
        self.trials: list[_Trial] = []
        self.wanted = self.seconds = seconds
        self.began = time.monotonic()

    def when_due(self, *, at_once: bool = False) -> None:
        """Report all waiting epochs if one of them must be reported, or if they have waited long enough.

        Raises:
            TrialsEnded: every trial of this worker has ended.

        """
        waited = time.monotonic() - self.began >= self.seconds
        if at_once or waited or any(trial.must_report for trial in self.trials):
            self.now(live=True)
            return
        for trial in self.trials:
            trial.keep_states()

    def now(self, *, live: bool = False) -> None:
        """Report all waiting epochs. ``live``: no epoch has begun after the last of them."""
        waiting = [trial for trial in self.trials if trial.waiting]
        if not waiting:
            return
        began = time.monotonic()
        goes_on = self.channel.report([trial.report(live=live) for trial in waiting])
        for trial in waiting:
            trial.goes_on = trial.task.trial in goes_on
            trial.due = goes_on.get(trial.task.trial, trial.due)
            if trial.goes_on:
                trial.forget()
        self.began = time.monotonic()
        # A disk, driver or network under load takes longer: then epochs wait longer, so that training gets most of the time.
        self.seconds = min(max(self.wanted, _SHARE * (self.began - began)), _LONGEST * self.wanted)

    @contextlib.contextmanager
    def nothing_lost(self) -> Iterator[None]:
        """Report the epochs before a failure, too."""
        try:
            yield
        except (Paused, TrialsEnded):
            raise
        except Exception:
            self.now()
            raise


@dataclass
class _Epoch:
    """An epoch that has ended and is not reported yet. ``states``: copies, one for each replicate."""

    together: Together
    ended: float  # time.monotonic()
    best: bool
    states: list[TrainState] | None = None

    def copy(self) -> None:
        """Copy the states of the run, whose tensors the next epoch overwrites."""
        self.states = [state.copied() for state in self.together.states]


def _next(epochs: Generator[Results, set[int] | None, None], ended: set[int] | None) -> Results | None:
    try:
        return epochs.send(ended)
    except StopIteration:
        return None


class _Trial:
    """One trial on its worker: the state that it starts from, and the epochs that are not reported yet."""

    def __init__(self, task: Assignment, config: TrainConfig, place: Workplace, reporting: _Reporting) -> None:
        self.task = task
        self.reporting = reporting
        self.channel = reporting.channel
        self.config = config
        self.data = load_checked(config, task.data_dir, task.data_hash, task.split_hash)
        self.place = place
        self.resume = _load_checkpoints(place, task)
        self.worker = describe_worker(task.threads, task.device, config)
        self.best_value, self.best_checkpoint = task.best_value, task.best_checkpoint
        self.last_checkpoint: str | None = None
        self.paused = str(NAMES.paused(task.trial))
        self.due = task.due
        self.goes_on = True
        self.reported = 0
        self.waiting: list[_Epoch] = []
        reporting.trials.append(self)

    def take(self, together: Together) -> None:
        """Take in the epoch that has just ended. If it is the best so far, its states are copied."""
        value = together.row.get(self.task.metric.name)
        best = value is not None and (self.best_value is None or self.task.metric.better(value, self.best_value))
        if best:
            self.best_value = value
            for earlier in self.waiting:
                earlier.states = None  # superseded before anybody has seen it
        self.waiting.append(_Epoch(together, ended=time.monotonic(), best=best))

    @property
    def must_report(self) -> bool:
        """True if the epoch that has just ended has to be reported before the next one begins."""
        if not self.waiting:
            return False
        latest = self.waiting[-1].together
        epoch = int(latest.row["epoch"])
        needed = [self.task.metric.name, *self.task.objectives]
        return (
            epoch >= self.due
            or epoch in self.task.again
            or epoch in self.task.picture_epochs
            or latest.diverged is not None
            or any(latest.row.get(name) is None for name in needed)
        )

    @property
    def at_the_end(self) -> bool:
        """True if no epoch follows the one that has just ended."""
        latest = self.waiting[-1].together
        return latest.diverged is not None or int(latest.row["epoch"]) >= self.config.epochs

    def keep_states(self) -> None:
        """Copy the states of the best epoch, whose tensors the next epoch overwrites."""
        if self.waiting and self.waiting[-1].best:
            self.waiting[-1].copy()

    def report(self, *, live: bool) -> Report:
        """Save the checkpoints of the waiting epochs and return the report on them.

        ``live``: the states of the last epoch are still those of the run, so that its checkpoint can be saved.
        """
        end_copy(self.worker["pid"], PARTS)
        rows = []
        now = time.monotonic()
        for epoch in self.waiting:
            metrics, last = epoch.together.row, live and epoch is self.waiting[-1]
            states = epoch.states or (epoch.together.states if last else None)
            checkpoint = checkpoint_sha256 = None
            pictures: dict[str, str] = {}
            if states is not None and epoch.together.diverged is None:
                checkpoint, checkpoint_sha256, folder = self._save(int(metrics["epoch"]), states, epoch.together.kept)
                if last and metrics["epoch"] in self.task.picture_epochs:
                    kept = epoch.together.results[epoch.together.kept]
                    pictures = draw_pictures(self.place.directory, self.task.trial, kept, seed=self.config.eval.seed)
                self.place.keep(folder, pictures.values())
                self.last_checkpoint = checkpoint
                if epoch.best:
                    self.best_checkpoint = checkpoint
            rows.append(
                ReportedRow(
                    metrics=metrics,
                    diverged=epoch.together.diverged,
                    checkpoint=checkpoint,
                    checkpoint_sha256=checkpoint_sha256,
                    pictures=pictures,
                    age=now - epoch.ended,
                )
            )
        measure = next((row.metrics["measure"] for row in rows if "measure" in row.metrics), None)
        self.reported = int(rows[-1].epoch)
        self.waiting = []
        return Report(
            trial=self.task.trial,
            attempt=self.task.attempt,
            epochs=self.config.epochs,
            rows=rows,
            worker=dict(self.worker),
            comparison={} if measure is None else dict(self.comparison(str(measure))),
        )

    def _save(self, epoch: int, states: Sequence[TrainState], kept: int) -> tuple[str, str, str]:
        """Save the states of an epoch; return the checkpoint of the kept replicate, its SHA-256 and the epoch's folder."""
        task, sweep_dir = self.task, self.place.directory
        folder = task.again.get(epoch, str(NAMES.checkpoint(task.trial, epoch, task.attempt)))
        places = [replicate_folder(folder, index, task.replicates) for index in range(len(states))]
        digests = []
        for place, state in zip(places, states, strict=True):
            with storing(sweep_dir / place):
                self._make_place_for(place)
                digests.append(state.save(sweep_dir / place))
        return places[kept], digests[kept], folder

    def comparison(self, measure: str) -> Facts:
        """Return the facts by which the rows of this trial may be ranked."""
        validation = self.data.validation
        return facts_of(self.config, measure, examples=None if validation is None else len(validation))

    def _make_place_for(self, state: str) -> None:
        """Make the folders above ``state``, unless the sweep was moved or removed meanwhile."""
        if self.place.store is None:
            refuse_gone(self.place.directory)
        make_below(self.place.directory, str(PurePosixPath(state).parent))

    def save_pause(self, state: TrainState) -> None:
        """Save the run in the middle of an epoch. No row names this state; only the same trial after the same epoch uses it."""
        with storing(self.place.directory / self.paused):
            self._make_place_for(self.paused)
            state.save(self.place.directory / self.paused)
        self.place.keep(self.paused)

    def take_up_pause(self) -> None:
        """Continue from the middle of an epoch, if an earlier attempt has saved such a state and it is whole."""
        if self.task.attempt == 0:
            return
        self.place.fetch(self.paused)
        try:
            state = TrainState.load(self.place.directory / self.paused)
        except StateError:  # there is none, or it was cut off: the epoch is begun again
            return
        # The rows up to the pause may have no checkpoint after the last best one. A lost checkpoint is trained again.
        if not self.task.again and (state.config_hash, state.epoch) == (config_hash(self.config), self.task.last_epoch):
            self.resume = [state]
            self.worker["continued_after_step"] = state.step

    def forget(self) -> None:
        """Delete the checkpoints that the trial no longer needs."""
        needed = {self.last_checkpoint, self.best_checkpoint}
        if self.reported <= self.task.last_epoch:  # No row names the newer checkpoints yet.
            needed.add(self.task.resume_from)
        _forget_all_but(self.place, self.task, needed)


def _load_checkpoints(place: Workplace, task: Assignment) -> list[TrainState] | None:
    """Return the states to continue from, None for a fresh start. A damaged state raises StateError."""
    if task.resume_from is None:
        return None
    folder = epoch_folder(task.resume_from, task.replicates)
    place.fetch(folder)
    states = [replicate_folder(folder, index, task.replicates) for index in range(task.replicates)]
    loaded = [TrainState.load(place.directory / state) for state in states]
    # Each is what its own folder says; that the folder is the one which the ledger means, only the row can say.
    if json.loads(read_file(place.directory / task.resume_from / INFO_FILE))["sha256"] != task.resume_sha256:
        raise StateError(f"{task.resume_from} is not what its row names: its sha256 is another")
    return loaded


def _forget_all_but(place: Workplace, task: Assignment, needed: set[str | None]) -> None:
    """Delete the trial's checkpoints except the last, to continue from, and the best, to keep."""
    folders = {
        Path(path).parts[2] for path in needed if path is not None
    }  # trials/trial-0007/epoch-0003-0[/replicate-1]
    parent = str(NAMES.trial(task.trial))
    with storing(place.directory / parent):
        present = list((place.directory / parent).iterdir())
    for old in present:
        if old.name not in folders:
            shutil.rmtree(old, ignore_errors=True)
    place.forget(parent, but=folders)


def load_checked(config: TrainConfig, data_dir: str | None, data_hash: str, split_hash: str) -> TrainingData:
    """Return the training data.

    Raises:
        DataError: they are not the data that the sweep was begun with.

    """
    data = load_training(config.data, data_directory(data_dir))  # read once per process
    if (data.data_hash, data.split_hash) != (data_hash, split_hash):
        raise DataError(
            f"data {config.data.kind!r} on {socket.gethostname()} is not the sweep's: its hash is {data.data_hash[:12]}, "
            f"the sweep's {data_hash[:12]}; put the same files on every node"
        )
    return data

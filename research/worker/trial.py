"""A trial on a worker: it trains with ``vae.train``, saves a checkpoint after every epoch and reports to the driver."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
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
from research.worker.messages import Report, TrialsEnded
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
    from collections.abc import Generator

    from research.ledger.events import Facts
    from research.worker.messages import Assignment, Channel
    from vae.fast.stacked import Results
    from vae.pause import Asked
    from vae.train_config import TrainConfig


PARTS = "a part of the config"


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
        trials = [_Trial(tasks[position], configs[position], place, channel) for position in group]
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
            why = "the worker was told to end (SIGTERM)" if notice.told() else "the sweep stops"
            where = f"saved after step {paused.state.step}, in epoch {paused.state.epoch + 1}"
            raise notice.Preempted(f"{why}; {where}") from None


def _train(trial: _Trial, *, among_others: bool, pause: Asked | None) -> None:
    task = trial.task
    for together in train_together(
        trial.config,
        trial.data,
        task.replicates,
        metric=task.metric.name,
        resume=trial.resume,
        device=task.device,
        pause=pause,
    ):
        if together.stacked:
            trial.worker["stack"] = {"replicates": task.replicates}
        trial.report(together)
        if among_others and trial.channel.ended([task.trial]):
            return
        trial.forget()


def _train_stack(trials: list[_Trial]) -> None:
    numbers = [trial.task.trial for trial in trials]
    epochs = train_stacked(
        [trial.config for trial in trials],
        trials[0].data,
        [None if trial.resume is None else trial.resume[0] for trial in trials],
        trials[0].task.device,
    )
    ended: set[int] | None = None
    while (results := _next(epochs, ended)) is not None:
        for position, result in results.items():
            trial = trials[position]
            now = [numbers[each] for each in results]
            trial.worker["stack"] = {"members": now, "position": now.index(trial.task.trial)}
            trial.report(Together(finite(result.row), [result], 0, result.diverged))
        over = trials[0].channel.ended(numbers)
        ended = {position for position in results if numbers[position] in over}
        for position in results.keys() - ended:
            trials[position].forget()


def _next(epochs: Generator[Results, set[int] | None, None], ended: set[int] | None) -> Results | None:
    try:
        return epochs.send(ended)
    except StopIteration:
        return None


class _Trial:
    """One trial on its worker: the state that it starts from, and what is saved and reported after each epoch."""

    def __init__(self, task: Assignment, config: TrainConfig, place: Workplace, channel: Channel) -> None:
        self.task = task
        self.channel = channel
        self.config = config
        self.data = load_checked(config, task.data_dir, task.data_hash, task.split_hash)
        self.place = place
        self.resume = _load_checkpoints(place, task)
        self.worker = describe_worker(task.threads, task.device, config)
        self.best_value, self.best_checkpoint = task.best_value, task.best_checkpoint
        self.last_checkpoint: str | None = None
        self.paused = str(NAMES.paused(task.trial))

    def report(self, together: Together) -> None:
        """Save an epoch and report it; return when the driver has written the row.

        Raises:
            TrialsEnded: the driver has ended every trial of this worker.

        """
        end_copy(self.worker["pid"], PARTS)
        task, metrics, sweep_dir = self.task, together.row, self.place.directory
        checkpoint = checkpoint_sha256 = None
        pictures: dict[str, str] = {}
        if together.diverged is None:
            epoch = int(metrics["epoch"])
            folder = task.again.get(epoch, str(NAMES.checkpoint(task.trial, epoch, task.attempt)))
            for index, result in enumerate(together.results):
                state = replicate_folder(folder, index, task.replicates)
                with storing(sweep_dir / state):
                    self._make_place_for(state)
                    sha256 = result.state.save(sweep_dir / state)
                if index == together.kept:
                    checkpoint, checkpoint_sha256 = state, sha256
            if epoch in task.picture_epochs:
                kept = together.results[together.kept]
                pictures = draw_pictures(sweep_dir, task.trial, kept, seed=self.config.eval.seed)
            self.place.keep(folder, pictures.values())
        self.channel.report(
            Report(
                trial=task.trial,
                attempt=task.attempt,
                epochs=self.config.epochs,
                metrics=metrics,
                diverged=together.diverged,
                checkpoint=checkpoint,
                checkpoint_sha256=checkpoint_sha256,
                pictures=pictures,
                worker=self.worker,
                comparison=dict(self.comparison(str(metrics["measure"]))) if "measure" in metrics else {},
            )
        )
        self.last_checkpoint = checkpoint
        value = metrics.get(task.metric.name)
        if value is not None and (self.best_value is None or task.metric.better(value, self.best_value)):
            self.best_value, self.best_checkpoint = value, checkpoint

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
        before = 0 if self.resume is None else self.resume[0].epoch
        if (state.config_hash, state.epoch) == (config_hash(self.config), before):
            self.resume = [state]
            self.worker["continued_after_step"] = state.step

    def forget(self) -> None:
        """Delete the checkpoints that the trial no longer needs."""
        _forget_all_but(self.place, self.task, {self.last_checkpoint, self.best_checkpoint})


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

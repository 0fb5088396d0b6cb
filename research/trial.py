"""One trial on a worker: drives ``vae.train``, saves after every epoch, reports to Tune."""

from __future__ import annotations

import json
import shutil
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pydantic import TypeAdapter
from ray import tune

from research.checkpoints import epoch_folder, replicate_folder
from research.data_copy import data_directory
from research.errors import storing
from research.folders import trial_name
from research.gpu_memory import limit_memory
from research.provenance import running_sha256
from research.replicates import train_together
from research.settings import Metric
from research.storage import Workplace
from research.trial_pictures import draw_pictures
from research.trial_rows import describe_worker
from vae.config import PositiveInt, part
from vae.data import TrainingData, load_training
from vae.data.dataset import DataError
from vae.serialization import from_dict
from vae.state import INFO_FILE, StateError, TrainState

if TYPE_CHECKING:
    from vae.train_config import TrainConfig


@part
class Assignment:
    """What the driver sends a worker, as one JSON text: all that a trial needs besides code and data."""

    sweep_dir: str
    storage: str | None  # the sweep's address in an object store; None: sweep_dir is seen by all nodes
    trial: int
    attempt: int
    config: dict[str, Any]
    replicates: PositiveInt
    metric: Metric
    threads: int
    device: str
    gpus: float  # its share
    source_sha256: str  # of the driver's code
    data_dir: str | None
    data_hash: str
    split_hash: str
    picture_epochs: list[int]  # where the trial may end, so that its last pictures exist
    resume_from: str | None  # a checkpoint, relative to the sweep directory
    resume_sha256: str | None  # as its row has it
    again: dict[int, str]  # epochs after it that have a row, whose checkpoints are lost: the folders where those belong
    best_checkpoint: str | None  # of the epochs before the resume
    best_value: float | None


def run_trial(config: dict[str, Any]) -> None:
    """Tune's trainable. ``config["assignment"]`` is an :class:`Assignment` as JSON."""
    task = TypeAdapter(Assignment).validate_json(config["assignment"])
    # The process has run other trials and will run more: everything that lasts is set here, at each start.
    torch.set_num_threads(task.threads)
    limit_memory(task.device, task.gpus)
    if (here := running_sha256()) != task.source_sha256:
        raise RuntimeError(
            f"the code on {socket.gethostname()} is not the driver's ({here[:12]}, not {task.source_sha256[:12]}): "
            "install the same on every node"
        )
    train_config = from_dict(task.config)
    data = load_checked(train_config, task.data_dir, task.data_hash, task.split_hash)
    place = Workplace(task.sweep_dir, task.storage)
    sweep_dir = place.directory
    resume = _load_checkpoints(place, task)
    best_value, best_checkpoint = task.best_value, task.best_checkpoint
    worker = describe_worker(task.threads, task.device, train_config)
    epochs = train_together(
        train_config, data, task.replicates, metric=task.metric.name, resume=resume, device=task.device
    )
    for together in epochs:
        metrics = together.row
        checkpoint = checkpoint_sha256 = None
        pictures: dict[str, str] = {}
        if together.diverged is None:
            epoch = int(metrics["epoch"])
            folder = task.again.get(epoch, f"trials/{trial_name(task.trial)}/epoch-{epoch:04d}-{task.attempt}")
            for index, result in enumerate(together.results):
                state = replicate_folder(folder, index, task.replicates)
                with storing(sweep_dir / state):
                    sha256 = result.state.save(sweep_dir / state)
                if index == together.kept:
                    checkpoint, checkpoint_sha256 = state, sha256
            if epoch in task.picture_epochs:
                kept = together.results[together.kept]
                pictures = draw_pictures(sweep_dir, task.trial, kept, seed=train_config.eval.seed)
            place.keep(folder, pictures.values())
        report = {
            "metrics": metrics,
            "epochs": train_config.epochs,
            "attempt": task.attempt,
            "diverged": together.diverged,
            "checkpoint": checkpoint,
            "checkpoint_sha256": checkpoint_sha256,
            "pictures": pictures,
            "worker": worker,
        }
        # Returns after the driver has written the row, and not at all when the driver stops the trial.
        tune.report({"report": json.dumps(report, allow_nan=False)})
        value = metrics.get(task.metric.name)
        if value is not None and (best_value is None or task.metric.better(value, best_value)):
            best_value, best_checkpoint = value, checkpoint
        _forget_all_but(place, task, {checkpoint, best_checkpoint})


def _load_checkpoints(place: Workplace, task: Assignment) -> list[TrainState] | None:
    """The states to continue from. One that is torn or altered raises StateError: never a silent fresh start."""
    if task.resume_from is None:
        return None
    folder = epoch_folder(task.resume_from, task.replicates)
    place.fetch(folder)
    states = [replicate_folder(folder, index, task.replicates) for index in range(task.replicates)]
    loaded = [TrainState.load(place.directory / state) for state in states]
    # Each is what its own folder says; that the folder is the one which the ledger means, only the row can say.
    if json.loads((place.directory / task.resume_from / INFO_FILE).read_bytes())["sha256"] != task.resume_sha256:
        raise StateError(f"{task.resume_from} is not what its row names: its sha256 is another")
    return loaded


def _forget_all_but(place: Workplace, task: Assignment, needed: set[str | None]) -> None:
    """Delete the trial's other checkpoints: the last (to continue) and the best (to keep) are in the ledger by now."""
    folders = {
        Path(path).parts[2] for path in needed if path is not None
    }  # trials/trial-0007/epoch-0003-0[/replicate-1]
    parent = f"trials/{trial_name(task.trial)}"
    with storing(place.directory / parent):
        present = list((place.directory / parent).iterdir())
    for old in present:
        if old.name not in folders:
            shutil.rmtree(old, ignore_errors=True)
    place.forget(parent, but=folders)


def load_checked(config: TrainConfig, data_dir: str | None, data_hash: str, split_hash: str) -> TrainingData:
    """The training data; refused if it is not what the sweep was begun with."""
    data = load_training(config.data, data_directory(data_dir))  # read once per process
    if (data.data_hash, data.split_hash) != (data_hash, split_hash):
        raise DataError(
            f"data {config.data.kind!r} on {socket.gethostname()} is not the sweep's: its hash is {data.data_hash[:12]}, "
            f"the sweep's {data_hash[:12]}; put the same files on every node"
        )
    return data

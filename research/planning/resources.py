"""The resources of each trial: CPUs, a GPU or a share of one. Requests that this machine can never serve are refused."""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from math import ceil
from typing import TYPE_CHECKING, Any

import torch

from research.errors import UserError
from research.ledger.settings import Resources
from research.planning.footprint import footprint
from research.planning.preflight import IN_PROCESS, available_cpus
from research.search.draws import draw_many
from research.worker.gpu_memory import GRAIN, Measured, gib, measure, share_of, trials_per_gpu
from vae.config import ConfigError
from vae.serialization import to_dict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from research.search.spaces import Space
    from vae.data import TrainingData
    from vae.train_config import TrainConfig

AUTO = "auto"
NO_GPU = "torch sees none; give a number: 0 trains on the CPU"
DRAWS = 200  # looked through for the largest config


def slots(*, gpus: int, share: float) -> int:
    """Return how many trials with ``share`` of a GPU fit on ``gpus``: a share lies on one GPU, never across two."""
    return gpus * int(1 / share + 1e-9)


def largest(configs: Iterable[TrainConfig], data: TrainingData) -> TrainConfig:
    """The config whose model, optimizer and saved activations take the most memory, by arithmetic."""
    sizes: list[tuple[int, TrainConfig]] = []
    for config in configs:
        try:
            sizes.append((footprint(config, data).bytes, config))
        except ConfigError:
            continue  # does not fit the data: the survey says so where it matters
    return max(sizes, key=lambda sized: sized[0])[1]


def automatic_share(
    space: Space,
    data: TrainingData,
    *,
    gpus: int,
    at_once: int,
    epochs: int | None,
    seed: int,
    data_set: str | None,
    data_dir: Path | None,
    replicates: int,
    metric: str,
    measure_one: Callable[..., Measured] | None = None,
) -> tuple[float, str]:
    """The share of a GPU for each trial, and in words why: the largest config drawn, measured over one epoch.

    ``at_once``: more trials than that never run, so none gets less than they leave it. ``measure_one``: stands in
    for :func:`measure` in a process of its own, so that the driver holds no memory of the GPU.

    Raises:
        UserError: the largest config does not fit.

    """
    drawn = draw_many(space, epochs=epochs, seed=seed, count=DRAWS, data=data_set)
    config = largest((one.config for one in drawn if one.config is not None), data)
    ask = measure_one or _measure_elsewhere
    try:
        measured = ask(to_dict(config), None if data_dir is None else str(data_dir), replicates, metric)
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"--gpus-per-trial auto: the largest of {DRAWS} draws needs more memory than the GPU has "
            f"({' '.join(str(error).split())}); narrow the space"
        ) from None
    fit = trials_per_gpu(measured)
    each = min(fit, max(1, ceil(at_once / gpus)))
    return share_of(each), (
        f"{each} trial{'s' if each > 1 else ''} on each GPU: the largest of {DRAWS} draws took {gib(measured.peak)} of "
        f"{gib(measured.total)}"
    )


def _measure_elsewhere(*arguments: Any) -> Measured:  # noqa: ANN401 - measure's own
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process, _safe_path():
        return process.submit(measure, *arguments).result()


@contextmanager
def _safe_path() -> Iterator[None]:
    """Have Python processes that are started in the block import nothing of the working directory, as with ``-P``."""
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        yield
    finally:
        del os.environ["PYTHONSAFEPATH"]
        if before is not None:
            os.environ["PYTHONSAFEPATH"] = before


def gpu_share(text: str) -> float | None:
    """``--gpus-per-trial`` as a number; None for ``auto``.

    Raises:
        UserError: it is neither, or no number of GPUs that a trial can use.

    """
    if text == AUTO:
        return None
    try:
        share = float(text)
    except ValueError:
        raise UserError(f"--gpus-per-trial must be a number from 0 to 1, or auto, got {text!r}") from None
    if not 0 <= share <= 1:  # not a number is neither
        raise UserError(f"--gpus-per-trial must be at most 1, as a trial trains on one GPU, and at least 0, got {text}")
    if 0 < share < 1 / GRAIN:
        raise UserError(f"--gpus-per-trial must be 0 or at least {1 / GRAIN:g}, the least that Ray counts, got {text}")
    return share


def local_gpus() -> int:
    """The GPUs that torch sees here."""
    return torch.cuda.device_count()


def resources_of(
    *, concurrent: int | None, cpus_per_trial: float | None, gpus_per_trial: float, address: str | None
) -> Resources:
    """Return the slots, and the cores divided among them. On this machine, refuse what it can never serve.

    ``address`` is that of a cluster, None for a Ray on this machine, or ``IN_PROCESS`` for one trial at a time.

    Raises:
        UserError: with what is asked and what there is.

    """
    if cpus_per_trial is not None and not cpus_per_trial > 0:
        raise UserError(f"--cpus-per-trial must be > 0, got {cpus_per_trial:g}")
    if address == IN_PROCESS:
        if concurrent is not None and concurrent > 1:
            raise UserError(
                f"--address none trains one trial at a time, got --concurrent {concurrent}: leave out one of them"
            )
        if 0 < gpus_per_trial < 1:
            raise UserError(
                f"--address none trains one trial at a time, got --gpus-per-trial {gpus_per_trial:g}: leave it out, or give 1"
            )
        concurrent = 1
    elif address is not None:
        if concurrent is None:
            raise UserError("--address needs --concurrent: a cluster that grows has no fixed number of slots")
        cpus = cpus_per_trial or 1.0
        return Resources(
            concurrent=concurrent, cpus_per_trial=cpus, gpus_per_trial=gpus_per_trial, threads=max(1, int(cpus))
        )
    cores, gpus = available_cpus(), local_gpus() if gpus_per_trial > 0 else 0
    if gpus_per_trial > 0 and gpus == 0:
        raise UserError(f"--gpus-per-trial needs a GPU, and {NO_GPU}")
    if concurrent is None:
        concurrent = max(1, int(cores // (cpus_per_trial or 1.0)))
        if gpus_per_trial > 0:
            concurrent = max(1, min(concurrent, slots(gpus=gpus, share=gpus_per_trial)))
    cpus = cpus_per_trial if cpus_per_trial is not None else max(1.0, float(cores // concurrent))
    if cpus > cores:
        raise UserError(f"--cpus-per-trial must be at most {cores}, what there is here, got {cpus:g}")
    if concurrent * cpus > cores:
        raise UserError(
            f"--concurrent {concurrent} × --cpus-per-trial {cpus:g} must be at most {cores} CPUs; lower one"
        )
    return Resources(
        concurrent=concurrent, cpus_per_trial=cpus, gpus_per_trial=gpus_per_trial, threads=max(1, int(cpus))
    )

"""The time of an epoch on this machine: a few configs are trained briefly on part of the data, the others are computed."""

from __future__ import annotations

import dataclasses
import itertools
import math
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import nnls

from vae.train import train

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from vae.data import Split, TrainingData
    from vae.train_config import TrainConfig

FIRST_STEPS = 2
MOST_STEPS = 200
MOST_EVALUATED = 1000
MOST_EPOCHS = 4


@dataclass(frozen=True)
class Timing:
    """Seconds of a whole epoch, extrapolated from ``steps`` timed steps and ``evaluated`` examples."""

    train_seconds: float
    evaluation_seconds: float
    checkpoint_seconds: float
    steps: int
    evaluated: int

    @property
    def seconds(self) -> float:
        """Training, evaluation and checkpoint together."""
        return self.train_seconds + self.evaluation_seconds + self.checkpoint_seconds


def time_epoch(config: TrainConfig, data: TrainingData, *, seconds: float, device: str) -> Timing:
    """Train ``config`` for about ``seconds`` on the first batches of ``data``.

    Two steps first, to see how many fit; then as many as do, up to a whole epoch. Not compiled, whatever the config
    says: compiling takes longer than the probe.
    """
    deadline = time.monotonic() + seconds
    config = dataclasses.replace(config, compile=False)
    all_steps = math.ceil(len(data.train) / config.batch_size)
    # The first epoch of a process pays for pages and kernels that later ones find ready.
    steps = min(FIRST_STEPS, all_steps)
    timing = _timed(config, data, steps=steps, epochs=2, device=device, deadline=math.inf)
    left = deadline - time.monotonic()
    once = timing.train_seconds / all_steps
    overhead = timing.evaluation_seconds * min(1.0, MOST_EVALUATED / _held_out(data))
    fits = int((left - MOST_EPOCHS * overhead) / MOST_EPOCHS / max(once, 1e-6))
    more = min(MOST_STEPS, all_steps, fits)
    if more <= steps:
        return timing
    return _timed(config, data, steps=more, epochs=MOST_EPOCHS, device=device, deadline=deadline)


def _timed(config: TrainConfig, data: TrainingData, *, steps: int, epochs: int, device: str, deadline: float) -> Timing:
    count = min(len(data.train), steps * config.batch_size)
    evaluated = min(_held_out(data), MOST_EVALUATED)
    share = evaluated / max(1, _held_out(data))
    # What is asked of a whole split is asked of the part in proportion, so that the time of both is one multiple.
    smaller = dataclasses.replace(
        config.eval,
        nll_images=max(1, round(config.eval.nll_images * share)),
        classified_samples=round(config.eval.classified_samples * share),
    )
    part = dataclasses.replace(
        data,
        train=_first(data.train, count),
        validation=None if data.validation is None else _first(data.validation, evaluated),
    )
    config = dataclasses.replace(config, eval=smaller, epochs=max(epochs, config.epochs))
    rows = []
    with tempfile.TemporaryDirectory(prefix="research-plan-") as folder:
        for result in itertools.islice(train(config, part, device=device), epochs):
            began = time.perf_counter()
            result.state.save(Path(folder) / "epoch")
            saving = time.perf_counter() - began
            rows.append((result.row["time/train_seconds"], result.row["time/evaluation_seconds"], saving))
            if time.monotonic() > deadline:
                break
    later = rows[1:] or rows
    training, evaluation, saving = (statistics.median(times) for times in zip(*later, strict=True))
    return Timing(
        train_seconds=training * len(data.train) / count,
        evaluation_seconds=evaluation / share if share else 0.0,
        checkpoint_seconds=saving,
        steps=math.ceil(count / config.batch_size),
        evaluated=evaluated,
    )


def _held_out(data: TrainingData) -> int:
    return 0 if data.validation is None else len(data.validation)


def _first(split: Split, count: int) -> Split:
    """The first ``count`` examples; of a memory-mapped set nothing is copied."""
    if split.index is not None:
        return dataclasses.replace(split, labels=split.labels[:count], index=split.index[:count])
    return dataclasses.replace(split, labels=split.labels[:count], images=split.images[:count])


@dataclass(frozen=True)
class Cost:
    """The work of one epoch of a config."""

    steps: int
    train_flops: float  # of all its steps
    example_flops: float  # of one example's forward pass
    parameters: float


@dataclass(frozen=True)
class Speed:
    """Seconds by arithmetic, fitted to what was timed: so much a step and so much a FLOP, a row, a parameter."""

    train: NDArray[np.float64]
    evaluation: NDArray[np.float64]
    checkpoint: NDArray[np.float64]
    misfit: float  # the largest ratio, at least 1, between what was timed and what the fit says of it

    def seconds(self, cost: Cost) -> float:
        """Return the time of an epoch in seconds."""
        return float(
            self.train @ (cost.steps, cost.train_flops)
            + self.evaluation @ (1.0, cost.example_flops)
            + self.checkpoint @ (1.0, cost.parameters)
        )


def fit_speed(costs: Sequence[Cost], timings: Sequence[Timing]) -> Speed:
    """Least squares in relative error, no coefficient below 0."""
    speed = Speed(
        train=_fit([(cost.steps, cost.train_flops) for cost in costs], [t.train_seconds for t in timings]),
        evaluation=_fit([(1.0, cost.example_flops) for cost in costs], [t.evaluation_seconds for t in timings]),
        checkpoint=_fit([(1.0, cost.parameters) for cost in costs], [t.checkpoint_seconds for t in timings]),
        misfit=1.0,
    )
    ratios = [speed.seconds(cost) / timing.seconds for cost, timing in zip(costs, timings, strict=True)]
    return dataclasses.replace(speed, misfit=max(max(ratio, 1 / ratio) for ratio in ratios))


def _fit(rows: list[tuple[float, float]], seconds: list[float]) -> NDArray[np.float64]:
    times = np.array(seconds)
    if not times.all():
        return np.zeros(2)
    matrix = np.array(rows) / times[:, None]
    scale = np.abs(matrix).max(axis=0)  # FLOPs are large numbers: without it the solver would see a column of noise
    scale[scale == 0] = 1.0
    found, _ = nnls(matrix / scale, np.ones(len(times)))
    return np.asarray(found / scale, dtype=np.float64)

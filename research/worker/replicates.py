"""Several seeds of one config, trained epoch by epoch together: the row is their mean, and early stopping judges the mean."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from research.intervals import median_index, standard_error
from research.ledger.events import REPLICATES, STANDARD_ERROR
from research.worker.rows import finite
from vae.fast.stackable import pays
from vae.fast.stacked import train_stacked
from vae.seeds import derive
from vae.train import train

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from vae.data import TrainingData
    from vae.pause import Asked
    from vae.state import TrainState
    from vae.train import EpochResult
    from vae.train_config import TrainConfig

KEPT = "replicate"  # in a row: which replicate's weights are kept with it


@dataclass(frozen=True)
class Together:
    """One epoch of all replicates.

    ``row`` is their mean, ``results`` has the result of each, ``kept`` is the index of the replicate whose weights are kept,
    and ``diverged`` says why training cannot go on. ``stacked``: they were trained as one batched model.
    """

    row: dict[str, Any]
    results: list[EpochResult]
    kept: int
    diverged: str | None
    stacked: bool = False

    @property
    def states(self) -> list[TrainState]:
        """The state of each replicate. Their tensors are live until the next epoch begins."""
        return [result.state for result in self.results]


def seeds_of(seed: int, replicates: int) -> list[int]:
    """Return the seeds of a config's replicates; the first is the trial's own."""
    return [seed, *(derive(seed, "replicate", index) % 2**31 for index in range(1, replicates))]


def train_together(
    config: TrainConfig,
    data: TrainingData,
    replicates: int,
    *,
    metric: str,
    resume: Sequence[TrainState] | None = None,
    device: torch.device | str = "cpu",
    pause: Asked | None = None,
) -> Generator[Together, None, None]:
    """Train ``config`` with ``replicates`` seeds, one epoch of each in turn, yielding after every epoch of all.

    The weights that stand for an epoch are those of the replicate whose ``metric`` is the median (the lower one of
    two), so that they are neither the luckiest nor the unluckiest. One replicate is an ordinary run, which can ``pause``
    as ``vae.train.train`` does. Several are one stack where that is faster.
    """
    seeds = seeds_of(config.seed, replicates)
    configs = [dataclasses.replace(config, seed=seed) for seed in seeds]
    stacked = replicates > 1 and pays(config, data, torch.device(device).type)
    if stacked:
        epochs = (list(results.values()) for results in train_stacked(configs, data, resume, device))
    else:
        epochs = _in_turn(configs, data, resume, device, pause if replicates == 1 else None)
    for results in epochs:
        failed = [index for index, result in enumerate(results) if result.diverged is not None]
        rows = [finite(result.row) for result in results]
        if replicates == 1:
            yield Together(rows[0], results, 0, results[0].diverged)
        elif failed:
            first = failed[0]
            diverged = f"{_name(first, seeds)}: {results[first].diverged}"
            yield Together(rows[first], results, first, diverged, stacked)
        else:
            kept = median_index([row.get(metric) for row in rows])
            yield Together(mean_row(rows) | {KEPT: kept}, results, kept, None, stacked)
        if failed:
            return


def _in_turn(
    configs: Sequence[TrainConfig],
    data: TrainingData,
    resume: Sequence[TrainState] | None,
    device: torch.device | str,
    pause: Asked | None,
) -> Generator[list[EpochResult], None, None]:
    """Yield one epoch of each run in turn."""
    runs = [
        train(config, data, resume=None if resume is None else resume[index], device=device, pause=pause)
        for index, config in enumerate(configs)
    ]
    while True:
        results = []
        for index, run in enumerate(runs):
            try:
                result = next(run, None)
            except Exception as error:
                if len(configs) > 1:
                    error.add_note(f"({_name(index, [config.seed for config in configs])})")
                raise
            if result is None:
                return
            results.append(result)
        yield results


def mean_row(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the mean of the replicates' rows by name. The ELBO is computed from the means, so that it is their sum.

    Times are summed: what the configuration cost. For each held-out figure the values and the standard error of the
    mean (standard deviation / √R) stand beside it.
    """
    first, mean = rows[0], dict[str, Any]()
    for name, value in first.items():
        values: list[Any] = [row.get(name) for row in rows]
        if name in {"time/train_seconds", "time/evaluation_seconds"}:
            mean[name] = math.fsum(values)
        elif isinstance(value, list):
            mean[name] = [_mean(column) for column in zip(*values, strict=True)]
        elif _is_number(value):
            mean[name] = _mean(values)
        else:
            mean[name] = value if all(other == value for other in values) else None
    if all(_is_number(mean.get(f"val/{name}")) for name in ("elbo", "reconstruction", "kl")):
        mean["val/elbo"] = -(mean["val/reconstruction"] + mean["val/kl"])
    for name, value in first.items():
        if name.startswith("val/") and _is_number(value):
            each: list[Any] = [row.get(name) for row in rows]
            mean[name + REPLICATES] = each
            if all(map(_is_number, each)):
                mean[name + STANDARD_ERROR] = standard_error(each)
    return mean


def row_of_kept(metrics: dict[str, Any]) -> dict[str, Any]:
    """Return what is known of the row of the replicate whose weights are kept: its own held-out figures.

    A row of a single run is its own.
    """
    if KEPT not in metrics:
        return dict(metrics)
    index = metrics[KEPT]
    return {
        name.removesuffix(REPLICATES): values[index] for name, values in metrics.items() if name.endswith(REPLICATES)
    } | {
        name: metrics[name]
        for name in ("epoch", "step", "measure", "model/parameters", "weights", "kl_estimate", KEPT)
        if name in metrics
    }


def _name(index: int, seeds: Sequence[int]) -> str:
    return f"replicate {index + 1} of {len(seeds)}, seed {seeds[index]}"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _mean(values: Sequence[Any]) -> Any:  # noqa: ANN401 - a number, or None where one is missing
    if not all(map(_is_number, values)):
        return None
    if all(value == values[0] for value in values):
        return values[0]
    return math.fsum(values) / len(values)

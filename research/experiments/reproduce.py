"""Train a recorded config again and say whether it came out the same."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from research import provenance
from research.errors import UserError
from research.ledger.events import REPLICATES
from research.worker.replicates import train_together
from research.worker.rows import describe_worker, finite
from vae.data import load_training
from vae.fast.stacked import train_stacked
from vae.serialization import from_record
from vae.user_code import each

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from research.ledger.records import Stacked, TrialRecord
    from vae.data import TrainingData
    from vae.train_config import TrainConfig

Verdict = Literal["reproduced exactly", "reproduced within tolerance", "did not reproduce"]
EXIT_CODES: dict[Verdict, int] = {
    "reproduced exactly": 0,
    "reproduced within tolerance": 3,
    "did not reproduce": 4,
}
RELATIVE_TOLERANCE = 1e-3  # where the sweep measured no spread over seeds
SPREADS = 3.0  # where it did
# What is judged by tolerance: sums over whole splits. Counts, norms and single latent dimensions only by equality.
JUDGED = ("train/loss", "val/elbo", "val/reconstruction", "val/kl", "val/denoise_error")


@dataclass(frozen=True)
class Difference:
    """The largest difference in one metric over all epochs."""

    metric: str
    epoch: int
    recorded: Any
    again: Any


@dataclass(frozen=True)
class Reproduction:
    """The verdict, what differs in the numbers, and what differs around them."""

    verdict: Verdict
    rows: int
    differences: list[Difference]
    surroundings: list[str]


def reproduce(
    record: TrialRecord,
    *,
    data_dir: Path | None,
    device: str,
    on_row: Callable[[dict[str, Any]], None],
    stacked: bool = False,
) -> Reproduction:
    """Train the record's config for as many epochs as it has rows; compare row by row.

    ``stacked``: in the stack in which it was trained, all of it. Threads must have been set to the record's before
    torch started work.

    Raises:
        UserError: ``stacked``, and the record is of a trial that trained alone.

    """
    if stacked and record.stacked is None:
        raise UserError(f"--stacked is for a trial that trained in a stack, and trial {record.trial} trained alone")
    config = from_record(record.config)
    data = load_training(config.data, data_dir)
    surroundings = []
    if data.data_hash != record.data_hash:
        surroundings.append(f"data: {record.data_hash[:12]} -> {data.data_hash[:12]}")
    if data.split_hash != record.split_hash:
        surroundings.append(f"split: {record.split_hash[:12]} -> {data.split_hash[:12]}")
    surroundings += _surroundings(record, device, config)
    again: list[dict[str, Any]] = []
    if record.stacked is not None and stacked:
        rows = _rows_of_stack(record.stacked, data, device)
    else:
        together = train_together(config, data, record.replicates, metric=record.metric.name, device=device)
        rows = (epoch.row for epoch in together)
    if record.stacked is not None and not stacked:
        surroundings.append(f"stack: of {len(record.stacked.configs)} trials -> alone")
    for row in each(rows, "a part of the config"):
        again.append(row)
        on_row(row)
        if len(again) == len(record.rows):
            break
    differences = compare(record.rows, again)
    return Reproduction(
        verdict=judge(record.rows, again, differences),
        rows=len(again),
        differences=differences,
        surroundings=surroundings,
    )


def _rows_of_stack(stack: Stacked, data: TrainingData, device: str) -> Iterator[dict[str, Any]]:
    """The rows of the one at ``stack.position``; the others leave where they had left, or were, in the sweep."""
    epochs = train_stacked([from_record(config) for config in stack.configs], data, device=device)
    results = next(epochs)
    while stack.position in results:
        yield finite(results[stack.position].row)
        ended = {
            other for other in results if other != stack.position and results[other].state.epoch >= stack.epochs[other]
        }
        try:
            results = epochs.send(ended)
        except StopIteration:
            return


def compare(recorded: list[Any], again: list[dict[str, Any]]) -> list[Difference]:
    """For each metric that is not equal in every row, its largest difference. Times are not compared."""
    worst: dict[str, tuple[float, Difference]] = {}
    for old, new in zip(recorded, again, strict=False):
        for metric in sorted(set(old) | set(new)):
            before, after = old.get(metric), new.get(metric)
            if metric.startswith("time/") or before == after:
                continue
            size = _distance(before, after)
            if metric not in worst or size > worst[metric][0]:
                worst[metric] = (size, Difference(metric, int(new["epoch"]), before, after))
    return [difference for _, difference in worst.values()]


def judge(recorded: list[Any], again: list[dict[str, Any]], differences: list[Difference]) -> Verdict:
    """The verdict on rows that were compared; a missing row or measure never passes."""
    if len(recorded) != len(again):
        return "did not reproduce"
    if not differences:
        return "reproduced exactly"
    if any(difference.metric == "measure" for difference in differences):
        return "did not reproduce"
    for old, new in zip(recorded, again, strict=True):
        for metric in JUDGED:
            before, after = old.get(metric), new.get(metric)
            if before is None and after is None:
                continue
            if before is None or after is None or abs(after - before) > tolerance(old, metric):
                return "did not reproduce"
    return "reproduced within tolerance"


def tolerance(row: Mapping[str, Any], metric: str) -> float:
    """How far a figure of ``row`` may be off: three standard deviations over seeds, where the row has several."""
    each = row.get(metric + REPLICATES)
    if isinstance(each, list) and len(each) > 1 and all(isinstance(value, int | float) for value in each):
        return SPREADS * float(statistics.stdev(each))
    return RELATIVE_TOLERANCE * abs(float(row[metric]))


def _distance(before: Any, after: Any) -> float:  # noqa: ANN401 - any JSON value
    """How far apart two values of a metric are; infinite where that has no size."""
    if isinstance(before, int | float) and isinstance(after, int | float):
        return abs(after - before)
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        return max((_distance(a, b) for a, b in zip(before, after, strict=True)), default=0.0)
    return float("inf")


def _surroundings(record: TrialRecord, device: str, config: TrainConfig) -> list[str]:
    """What is not as it was: code, versions, machine, threads."""
    import torch  # noqa: PLC0415 - loaded long before, by the training

    now = describe_worker(torch.get_num_threads(), device, config)
    found = []
    if record.code.get("source_sha256") != (source := provenance.code().get("source_sha256")):
        found.append(f"code: {str(record.code.get('source_sha256'))[:12]} -> {str(source)[:12]}")
    external = record.code.get("external")
    found += _changes("external ", external if isinstance(external, dict) else {}, now.get("external", {}))
    found += _changes("version of ", record.versions, provenance.versions())
    found += _changes("hardware: ", record.hardware, now["hardware"])
    if record.threads != now["threads"]:
        found.append(f"threads: {record.threads} -> {now['threads']}")
    if record.device != device:
        found.append(f"device: {record.device} -> {device}")
    return found


def _changes(what: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    names = sorted(set(before) | set(now))
    return [
        f"{what}{name}: {before.get(name)} -> {now.get(name)}" for name in names if before.get(name) != now.get(name)
    ]

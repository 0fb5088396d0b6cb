"""Train a recorded config again and say whether it came out the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from research import provenance
from research.errors import UserError
from research.experiments.tolerance import agrees
from research.ledger.consistency import config_of
from research.worker.replicates import train_together
from research.worker.rows import describe_worker, finite
from vae.data import load_training
from vae.fast.stacked import train_stacked
from vae.measure import measure_of
from vae.serialization import from_record
from vae.system.user_code import each

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
# In every row that has any of them: a record without one has lost it, whatever code made it.
_EVERY_ROW = ("train/loss", "val/elbo", "val/reconstruction", "val/kl", "val/denoise_error")


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
        UserError: ``stacked``, and the record is of a trial that trained alone; or the record contradicts itself.

    """
    if stacked and record.stacked is None:
        raise UserError(f"--stacked is for a trial that trained in a stack, and trial {record.trial} trained alone")
    if not record.rows:
        raise UserError(
            f"the record of trial {record.trial} has no rows ({record.status}): there is nothing to compare"
        )
    config = config_of(record)
    data = load_training(config.data, data_dir)
    _check_measure(record, config, data)
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
        verdict=judge(
            record.rows,
            again,
            differences,
            ranked_by=record.metric.name,
            same_code=not any(line.startswith("code: ") for line in surroundings),
        ),
        rows=len(again),
        differences=differences,
        surroundings=surroundings,
    )


def _check_measure(record: TrialRecord, config: TrainConfig, data: TrainingData) -> None:
    """Refuse a record whose measure is not what its config measures on these data, where these are the record's."""
    if (data.data_hash, data.split_hash) != (record.data_hash, record.split_hash):
        return  # the verdict says that the data are others
    measure = "" if data.validation is None else str(measure_of(config, data.validation, levels=data.levels))
    if record.measure != measure:
        raise UserError(
            f"the record of trial {record.trial} contradicts itself: its measure is {record.measure[:200]!r}, and its config "
            f"and data have {measure!r}; take an unchanged copy of the record"
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
    """Return the largest difference of each metric that is not equal in every row. Times are not compared."""
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


def judge(
    recorded: list[Any],
    again: list[dict[str, Any]],
    differences: list[Difference],
    *,
    ranked_by: str = "val/elbo",
    same_code: bool = False,
) -> Verdict:
    """The verdict on rows that were compared: every figure of every row has to agree.

    ``ranked_by``: the record's metric. ``same_code``: the record's code is this one, so that a figure that is only
    in the new rows was taken out of the record; other code may have learned to report it.
    """
    if len(recorded) != len(again):
        return "did not reproduce"
    if not differences:
        return "reproduced exactly"
    always = {"measure", ranked_by, *_EVERY_ROW}
    for old, new in zip(recorded, again, strict=True):
        names = set(old) | (set(new) if same_code else always & set(new))
        if not all(agrees(name, old, new, ranked_by) for name in names if not name.startswith("time/")):
            return "did not reproduce"
    return "reproduced within tolerance"


def _distance(before: Any, after: Any) -> float:  # noqa: ANN401 - any JSON value
    """Return the distance of two values of a metric; infinite if it is not defined."""
    if isinstance(before, int | float) and isinstance(after, int | float):
        return abs(after - before)
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        return max((_distance(a, b) for a, b in zip(before, after, strict=True)), default=0.0)
    return float("inf")


def _surroundings(record: TrialRecord, device: str, config: TrainConfig) -> list[str]:
    """Return what has changed since the record: code, versions, machine, threads."""
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

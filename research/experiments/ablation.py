"""Which parts of a config matter: it is trained again and again, each time with one thing changed, seed by seed.

Every variant trains with the same fresh seeds, so that differences are paired. The record's own seed is not among
them: it was chosen by a search for having come out well. Each finished run is a model folder, so an ablation that was
cut short continues where it was.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from research import provenance
from research.errors import UserError
from research.experiments.single import train_once
from research.experiments.variants import FULL, Variant
from research.ledger.comparison import why_not
from research.ledger.records import load_record, pretty
from research.planning.metrics import check_metric
from research.planning.preflight import check_scorable, held_out_split, without_memory
from research.store.folders import verify_folder, write_folder
from research.store.layout import CONFIG
from research.worker.comparison import facts_on_data
from vae.config import ConfigError
from vae.data import load_training
from vae.durable import read_file
from vae.measure import measure_of
from vae.seeds import derive
from vae.serialization import config_hash, from_record, to_dict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from research.ledger.records import TrialRecord
    from research.ledger.settings import Metric
    from vae.data import TrainingData
    from vae.train_config import TrainConfig

FAILED = "failed.json"


def ablation_seeds(config: TrainConfig, count: int) -> list[int]:
    """The seeds that every row trains with."""
    return [derive(config.seed, "ablation", index) % 2**31 for index in range(count)]


@dataclass(frozen=True)
class RunResult:
    """A finished run: the figures of its best epoch, or why there are none."""

    row: dict[str, Any] | None
    failed: str | None = None


@dataclass(frozen=True)
class Ablation:
    """Variants, the full config first, all checked against each other, their data, and what is in ``out`` already."""

    variants: list[Variant]
    seeds: list[int]
    metric: Metric
    out: Path
    data_dir: Path | None
    measure: str


def prepare(
    variants: Sequence[Variant],
    *,
    config: TrainConfig,
    metric: Metric,
    seeds: int,
    out: Path,
    data_dir: Path | None,
    data_hash: str | None = None,
) -> Ablation:
    """Find before anything trains what can't be trained, compared or continued.

    ``data_hash``: the record's, where there is one.

    Raises:
        UserError: (or ConfigError, DataError) one line.

    """
    check_metric(metric, [config])
    data = load_training(config.data, data_dir)
    if data_hash is not None and data.data_hash != data_hash:
        raise UserError(
            f"the data are not the record's ({data_hash[:12]} -> {data.data_hash[:12]}): what is ablated would be another "
            "model; put the same files there, or start from its config.json"
        )
    held_out_split(data, config, metric)
    _refuse_misfit(config, data)
    check_scorable(config, data, data_dir)
    measure = _measure(config, data)
    rows = [Variant(FULL, config)]
    for variant in variants:
        own = load_training(variant.config.data, data_dir)
        _refuse_misfit(variant.config, own, f"--change {variant.label!r}: ")
        check_scorable(variant.config, own, data_dir)
        rows.append(dataclasses.replace(variant, incomparable=_incomparable(config, variant, metric, own, data)))
    ablation = Ablation(rows, ablation_seeds(config, seeds), metric, out, data_dir, measure)
    for variant in rows:
        for seed in ablation.seeds:
            finished(ablation, variant, seed)  # refuses what is not of this ablation
    return ablation


def _refuse_misfit(config: TrainConfig, data: TrainingData, what: str = "") -> None:
    try:
        without_memory(config, data)
    except ConfigError as error:
        raise ConfigError(f"{what}{error}") from None


def _measure(config: TrainConfig, data: TrainingData) -> str:
    return "" if data.validation is None else str(measure_of(config, data.validation, levels=data.levels))


def _incomparable(
    config: TrainConfig, variant: Variant, metric: Metric, data: TrainingData, full_data: TrainingData
) -> str | None:
    """Why the variant's figures may not be held against the full config's; None where they may."""
    try:
        check_metric(metric, [config, variant.config])
    except UserError as error:
        return str(error)
    reason = why_not([metric.name], facts_on_data(variant.config, data), facts_on_data(config, full_data))
    return None if reason is None else f"{reason}, as the full config's"


def run_all(
    ablation: Ablation, *, threads: int, device: str, on_run: Callable[[str, int, RunResult, bool], None]
) -> list[list[RunResult]]:
    """Train what is not there yet: seed by seed, so that an interruption leaves whole pairs. By variant and seed.

    ``on_run(label, seed, result, new)`` is told of each.
    """
    found: dict[tuple[str, int], RunResult] = {}
    for seed in ablation.seeds:
        for variant in ablation.variants:
            result = finished(ablation, variant, seed)
            new = result is None
            if result is None:
                result = _train(ablation, variant, seed, threads=threads, device=device)
            found[variant.label, seed] = result
            on_run(variant.label, seed, result, new)
    return [[found[variant.label, seed] for seed in ablation.seeds] for variant in ablation.variants]


def _train(ablation: Ablation, variant: Variant, seed: int, *, threads: int, device: str) -> RunResult:
    folder = _folder(ablation, variant, seed)
    config = dataclasses.replace(variant.config, seed=seed)
    try:
        run = train_once(
            config,
            source=f"ablation: {variant.label}",
            out=folder,
            data_dir=ablation.data_dir,
            threads=threads,
            device=device,
            on_row=lambda _: None,
        )
    except Exception as error:  # noqa: BLE001 - whatever it is, the other runs are not to be lost
        # Not kept: memory may have run out, and the next call may have more.
        return RunResult(None, f"{type(error).__name__}: {' '.join(str(error).split())}")
    if run.kept_epoch is None:
        facts = {"reason": run.diverged, "config_hash": config_hash(config), **_code()}
        write_folder(folder, {FAILED: pretty(facts).encode(), CONFIG: pretty(to_dict(config)).encode()})
    result = finished(ablation, variant, seed)
    assert result is not None, "it was written above"
    return result


def finished(ablation: Ablation, variant: Variant, seed: int) -> RunResult | None:
    """The run of ``variant`` with ``seed`` in the ablation's folder; None where it is yet to train.

    Raises:
        UserError: what is there is of another config, or was made by other code. CorruptFile: it is damaged.

    """
    folder = _folder(ablation, variant, seed)
    if not folder.exists():
        return None
    if (folder / FAILED).is_file():
        verify_folder(folder)
        facts = json.loads(read_file(folder / FAILED))
        _refuse_other(folder, facts, variant, seed)
        return RunResult(None, str(facts["reason"]))
    record = load_record(folder)
    _refuse_other(folder, {"config_hash": record.config_hash, **record.code}, variant, seed)
    if (held := from_record(record.config).eval) != variant.config.eval:  # the hash leaves out eval.subset
        raise UserError(f"{folder} holds a run with {held}, not with {variant.config.eval}: choose another --out")
    if record.status == "FAIL":
        return RunResult(None, record.reason)
    row = _best_row(record, ablation.metric)
    return RunResult(row)


def _best_row(record: TrialRecord, metric: Metric) -> dict[str, Any]:
    """The row of the best epoch by the ablation's metric; by the run's own where it has no such figure."""
    rows = [row for row in record.rows if isinstance(row.get(metric.name), int | float)]
    sign = 1 if metric.direction == "maximize" else -1
    if rows:
        return dict(max(rows, key=lambda row: sign * float(row[metric.name])))  # type: ignore[arg-type] # a number
    return dict(next(row for row in record.rows if row["epoch"] == record.best_epoch))


def _refuse_other(folder: Path, facts: dict[str, Any], variant: Variant, seed: int) -> None:
    expected = config_hash(dataclasses.replace(variant.config, seed=seed))
    if facts.get("config_hash") != expected:
        raise UserError(
            f"{folder} holds a run of config {str(facts.get('config_hash'))[:12]}, not of {expected[:12]} "
            f"({variant.label}): choose another --out"
        )
    now = _code()["source_sha256"]
    if facts.get("source_sha256") != now:
        raise UserError(
            f"{folder} was trained by other code ({str(facts.get('source_sha256'))[:12]} -> {str(now)[:12]}): its figures "
            "would not compare with new ones; go back to that code, or choose another --out"
        )


def _code() -> dict[str, Any]:
    return {"source_sha256": provenance.source_sha256()}


def _folder(ablation: Ablation, variant: Variant, seed: int) -> Path:
    return ablation.out / variant.folder / f"seed-{seed}"

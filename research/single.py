"""One training run without Ray: ``research train``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from research import provenance
from research.errors import UserError
from research.folders import write_folder
from research.records import RECORD, TrialRecord, pretty
from research.settings import Metric
from research.trial_rows import describe_worker, finite
from vae.data import load_training
from vae.pictures import reconstructions, samples
from vae.portable import CONFIG_FILE, WEIGHTS_FILE, weights_file
from vae.serialization import config_hash, to_dict
from vae.train import train

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from vae.train_config import TrainConfig

METRIC = Metric(name="val/elbo", direction="maximize")


@dataclass(frozen=True)
class Run:
    """A finished single run: its rows, which of them the kept weights belong to, and why it ended early, if it did."""

    rows: list[dict[str, Any]]
    kept_epoch: int | None
    diverged: str | None


def train_once(
    config: TrainConfig,
    *,
    source: str,
    out: Path,
    data_dir: Path | None,
    threads: int,
    device: str,
    on_row: Callable[[dict[str, Any]], None],
) -> Run:
    """Train ``config`` and write ``out`` as a model folder with its record.

    The weights kept are those of the epoch with the best ``val/elbo``; without a validation split, the last.
    """
    if out.exists():
        raise UserError(f"{str(out)!r} exists already; choose another --out")
    data = load_training(config.data, data_dir)
    rows: list[dict[str, Any]] = []
    kept: dict[str, bytes | Path] = {}
    kept_row: dict[str, Any] | None = None
    diverged = None
    for result in train(config, data, device=device):
        row = finite(result.row)
        rows.append(row)
        on_row(row)
        diverged = result.diverged
        if diverged is not None:
            break
        value = row.get(METRIC.name)
        if kept_row is None or value is None or METRIC.better(value, kept_row[METRIC.name]):
            kept_row = row
            kept = {
                WEIGHTS_FILE: weights_file(result.state),
                "reconstructions.png": reconstructions(result.model, result.examples),
                "samples.png": samples(result.model, seed=config.eval.seed),
            }
    if kept_row is None:
        return Run(rows=rows, kept_epoch=None, diverged=diverged)
    worker = describe_worker(threads, device)
    record = TrialRecord(
        sweep="",
        trial=0,
        space=source,
        space_sha256="",
        params={},
        config=to_dict(config),
        config_hash=config_hash(config),
        seed=config.seed,
        status="COMPLETE" if diverged is None else "FAIL",
        reason=diverged,
        metric=METRIC,
        best_epoch=kept_row["epoch"],
        rows=rows,
        measure=kept_row.get("measure", ""),
        data_hash=data.data_hash,
        split_hash=data.split_hash,
        data_dir=None if data_dir is None else str(data_dir),
        code=provenance.code(),
        versions=provenance.versions(),
        hardware=worker["hardware"],
        threads=threads,
        device=device,
    )
    kept |= {
        CONFIG_FILE: pretty(to_dict(config)).encode(),
        "metrics.json": pretty(kept_row).encode(),
        RECORD: record.to_json().encode(),
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    write_folder(out, kept)
    return Run(rows=rows, kept_epoch=kept_row["epoch"], diverged=diverged)

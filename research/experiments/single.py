"""One training run without Ray: ``research train``."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from research import provenance
from research.errors import UserError, storing
from research.ledger.records import TrialRecord, code_of, pretty
from research.ledger.settings import Metric
from research.ledger.trust import remember
from research.models.model_card import model_card
from research.planning.data_notes import data_notes
from research.planning.free_space import check_free_space
from research.planning.metrics import default_metric
from research.planning.preflight import check_scorable
from research.store.folders import write_folder
from research.store.layout import CARD, METRICS, RECORD
from research.worker.rows import describe_worker, finite
from vae.data import load_training
from vae.pictures import drawings
from vae.portable import CONFIG_FILE, WEIGHTS_FILE, weights_file
from vae.serialization import config_hash, to_dict
from vae.system.user_code import each
from vae.train import train

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from vae.train import EpochResult
    from vae.train_config import TrainConfig


@dataclass(frozen=True)
class Run:
    """A finished single run: its rows, which of them the kept weights belong to, and why it ended early, if it did."""

    rows: list[dict[str, Any]]
    kept_epoch: int | None
    diverged: str | None
    kept_row: dict[str, Any] | None = None


def train_once(
    config: TrainConfig,
    *,
    source: str,
    out: Path,
    data_dir: Path | None,
    threads: int,
    device: str,
    on_row: Callable[[dict[str, Any]], None],
    on_note: Callable[[str], None] = lambda _: None,
) -> Run:
    """Train ``config`` and write ``out`` as a model folder with its record.

    The weights kept are those of the epoch that is best by what a sweep of this config would rank by (``val/elbo``,
    where it has one; of an importance-weighted objective without ``eval.nll_k`` too); without a validation split,
    the last.
    """
    if out.exists():
        raise UserError(f"{str(out)!r} exists already; choose another --out")
    with storing(out):  # before hours of training, not after
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out.parent) as file:
            file.write(b"x")
    metric = default_metric([config])
    if metric.name == "val/nll_iwae" and config.eval.nll_k == 0:
        metric = Metric(name="val/elbo", direction="maximize")
    data = load_training(config.data, data_dir)
    check_scorable(config, data, data_dir)
    for line in data_notes(data, [config]):
        on_note(line)
    check_free_space(out.parent, [config], data, concurrent=0, replicates=1, keep=1)
    rows: list[dict[str, Any]] = []
    kept: dict[str, bytes | Path] = {}
    kept_row: dict[str, Any] | None = None
    diverged = None
    for result in each(train(config, data, device=device), "a part of the config"):
        row = finite(result.row)
        rows.append(row)
        on_row(row)
        diverged = result.diverged
        if diverged is not None:
            break
        value = row.get(metric.name)
        if kept_row is None or value is None or metric.better(value, kept_row[metric.name]):
            kept_row = row
            kept = {
                WEIGHTS_FILE: weights_file(result.state),
                **_pictures(result, config.eval.seed),
            }
    if kept_row is None:
        return Run(rows=rows, kept_epoch=None, diverged=diverged)
    worker = describe_worker(threads, device, config)
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
        metric=metric,
        best_epoch=kept_row["epoch"],
        rows=rows,
        measure=kept_row.get("measure", ""),
        data_hash=data.data_hash,
        split_hash=data.split_hash,
        label_names=data.label_names,
        data_dir=None if data_dir is None else str(data_dir),
        code=code_of(provenance.code(), worker),
        versions=provenance.versions(),
        hardware=worker["hardware"],
        threads=threads,
        device=device,
        epochs_trained=len(rows),
    )
    kept |= {
        CONFIG_FILE: pretty(to_dict(config)).encode(),
        METRICS: pretty(kept_row).encode(),
        RECORD: record.to_json().encode(),
    }
    pictures = sorted(name for name in kept if name.endswith(".png"))
    kept[CARD] = model_card(to_dict(config), kept_row, json.loads(record.to_json()), pictures).encode()
    with storing(out):
        write_folder(out, kept)
    remember(record.to_json().encode())
    return Run(rows=rows, kept_epoch=kept_row["epoch"], diverged=diverged, kept_row=kept_row)


def _pictures(result: EpochResult, seed: int) -> dict[str, bytes]:
    return {f"{name}.png": drawing() for name, drawing in drawings(result.model, result.examples, seed=seed).items()}

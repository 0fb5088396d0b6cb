"""Reads W&B's offline runs: what ``wandb sync`` would send, without W&B's own reader (seconds per run)."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BLOCK = 32 * 1024
FILE_HEADER = 7
RECORD_HEADER = struct.Struct("<IHB")  # crc32c, length, kind: LevelDB's log format
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


@dataclass
class OfflineRun:
    """One ``offline-run-*`` directory. ``exit_code`` is None where the run was never finished."""

    id: str = ""
    name: str = ""
    group: str = ""
    job_type: str = ""
    project: str = ""
    tags: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    exit_code: int | None = None
    files: list[str] = field(default_factory=list)
    metrics: dict[str, str] = field(default_factory=dict)  # summaries of defined metrics, by name
    artifacts: dict[str, list[str]] = field(default_factory=dict)  # aliases of models, by name
    artifact_files: dict[str, list[str]] = field(default_factory=dict)
    directory: Path | None = None


def read_runs(sweep_dir: Path) -> list[OfflineRun]:
    """Every offline run directory of a sweep's trials, in order of ids."""
    runs = [read_run(path) for path in (sweep_dir / "wandb").glob("offline-run-*")]
    return sorted((run for run in runs if run.job_type != "sweep"), key=lambda run: run.id)


def read_sweep(sweep_dir: Path) -> OfflineRun:
    """The one run of the sweep as a whole."""
    (path,) = (sweep_dir / "wandb").glob("offline-run-*-sweep")
    return read_run(path)


def table(run: OfflineRun, name: str) -> list[dict[str, Any]]:
    """A table that a run logged, a dictionary for each row."""
    assert run.directory is not None
    logged = next(row for row in reversed(run.rows) if f"{name}.path" in row)
    found = json.loads((run.directory / "files" / logged[f"{name}.path"]).read_bytes())
    return [dict(zip(found["columns"], row, strict=True)) for row in found["data"]]


def read_run(directory: Path) -> OfflineRun:
    """What the ``.wandb`` file of one run directory holds."""
    from wandb.proto import wandb_internal_pb2

    run = OfflineRun(directory=directory)
    (path,) = directory.glob("*.wandb")
    for data in _records(path.read_bytes()):
        record = wandb_internal_pb2.Record.FromString(data)
        match record.WhichOneof("record_type"):
            case "run":
                run.id, run.name, run.project = record.run.run_id, record.run.display_name, record.run.project
                run.group, run.job_type, run.tags = (
                    record.run.run_group,
                    record.run.job_type,
                    list(record.run.tags),
                )
                run.config |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
            case "config":
                run.config |= {item.key: json.loads(item.value_json) for item in record.config.update}
            case "history":
                items = record.history.item
                run.rows.append({item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items})
            case "summary":
                for item in record.summary.update:
                    run.summary[item.key or ".".join(item.nested_key)] = json.loads(item.value_json)
            case "metric" if record.metric.name:
                summary = record.metric.summary
                chosen = ("min", summary.min), ("max", summary.max), ("last", summary.last)
                run.metrics[record.metric.name] = ",".join(name for name, asked in chosen if asked)
            case "request" if record.request.WhichOneof("request_type") == "log_artifact":
                _take_artifact(run, record.request.log_artifact.artifact)
            case "artifact":
                _take_artifact(run, record.artifact)
            case "exit":
                run.exit_code = record.exit.exit_code
    files = directory / "files"
    run.files = sorted(path.relative_to(files).as_posix() for path in files.rglob("*") if path.is_file())
    return run


def _take_artifact(run: OfflineRun, artifact: Any) -> None:
    if artifact.type == "model":
        run.artifacts[artifact.name] = sorted(set(artifact.aliases) - {"latest"})  # which W&B adds itself
        run.artifact_files[artifact.name] = sorted(entry.path for entry in artifact.manifest.contents)


def _records(content: bytes) -> Iterator[bytes]:
    position, parts = FILE_HEADER, b""
    while position + RECORD_HEADER.size <= len(content):
        left = BLOCK - position % BLOCK
        if left < RECORD_HEADER.size:
            position += left
            continue
        _, length, kind = RECORD_HEADER.unpack_from(content, position)
        position += RECORD_HEADER.size
        parts += content[position : position + length]
        position += length
        if kind in {FULL, LAST}:
            yield parts
            parts = b""

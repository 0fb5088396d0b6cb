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


def read_runs(sweep_dir: Path) -> list[OfflineRun]:
    """Every offline run directory of a sweep, in order of ids."""
    runs = [read_run(path) for path in (sweep_dir / "wandb").glob("offline-run-*")]
    return sorted(runs, key=lambda run: run.id)


def read_run(directory: Path) -> OfflineRun:
    """What the ``.wandb`` file of one run directory holds."""
    from wandb.proto import wandb_internal_pb2

    run = OfflineRun()
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
            case "exit":
                run.exit_code = record.exit.exit_code
    files = directory / "files"
    run.files = sorted(path.relative_to(files).as_posix() for path in files.rglob("*") if path.is_file())
    return run


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

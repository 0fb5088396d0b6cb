"""The rest of a run whose upload was cut off: the rows that the service does not have yet.

W&B's client appends: an offline run that is sent again has its rows twice at the service (0.31, seen against a server
of ours). So the service is asked for the last step that it has, and a copy without the rows up to there is sent.
"""

from __future__ import annotations

import base64
import json
import netrc
import os
import shutil
import struct
import urllib.error
import urllib.request
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from research.planning.tracking_mode import DEFAULT_URL

if TYPE_CHECKING:
    from collections.abc import Iterator

# The client's own query before it resumes a run.
_QUERY = """query RunResumeStatus($project: String, $entity: String, $name: String!) {
  model(name: $project, entityName: $entity) { bucket(name: $name, missingOk: true) { historyLineCount historyTail } }
}"""
# A run's file is a LevelDB log: blocks of 32 KiB, in them pieces of records with checksum, length and kind.
_BLOCK = 32 * 1024
_FILE_HEADER = 7
_PIECE = struct.Struct("<IHB")
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


def last_step(identity: str, *, project: str, entity: str | None, timeout_s: float) -> int | None:
    """The step of the last row that W&B's service has of a run; None where it has none.

    Raises:
        OSError, ValueError: it doesn't say.

    """
    url = (os.environ.get("WANDB_BASE_URL") or DEFAULT_URL).rstrip("/")
    key = os.environ.get("WANDB_API_KEY") or _key_of_netrc(urlsplit(url).hostname or "")
    body = {"query": _QUERY, "operationName": "RunResumeStatus"}
    asked = json.dumps(body | {"variables": {"project": project, "entity": entity, "name": identity}}).encode()
    headers = {
        "Content-Type": "application/json",
        "Authorization": "Basic " + base64.b64encode(f"api:{key}".encode()).decode(),
    }
    request = urllib.request.Request(f"{url}/graphql", asked, headers)  # noqa: S310 - the user's own server
    with urllib.request.urlopen(request, timeout=timeout_s) as answer:  # noqa: S310
        bucket = ((json.load(answer).get("data") or {}).get("model") or {}).get("bucket")
    if not bucket or not bucket.get("historyLineCount"):
        return None
    tail = json.loads(bucket["historyTail"])
    return int(json.loads(tail[-1])["_step"])


def copy_without_rows(directory: Path, to: Path, *, until: int) -> Path:
    """A copy of a run's directory whose file lacks the rows up to step ``until``; where it is."""
    from wandb.proto import wandb_internal_pb2  # noqa: PLC0415 - a second

    messages: Any = wandb_internal_pb2  # made at import: no type checker sees what is in it
    copy = to / directory.name
    shutil.copytree(directory, copy, ignore=shutil.ignore_patterns("*.wandb", "*.wandb.synced"))
    (path,) = directory.glob("*.wandb")
    content = path.read_bytes()
    kept = []
    for data in _records(content):
        record = messages.Record.FromString(data)
        if record.WhichOneof("record_type") == "history" and _step(record.history) <= until:
            continue
        kept.append(data)
    (copy / path.name).write_bytes(content[:_FILE_HEADER] + _packed(kept))
    return copy


def _key_of_netrc(host: str) -> str:
    named = os.environ.get("NETRC")
    for path in [Path(named)] if named else [Path.home() / ".netrc", Path.home() / "_netrc"]:
        try:
            found = netrc.netrc(path).authenticators(host)
        except (OSError, netrc.NetrcParseError):
            continue
        if found is not None:
            return found[2] or ""
    return ""


def _step(history: Any) -> int:  # noqa: ANN401 - a protobuf message
    for item in history.item:
        if "_step" in {item.key, *item.nested_key}:
            return int(json.loads(item.value_json))
    return int(history.step.num)


def _records(content: bytes) -> Iterator[bytes]:
    """Whole records; what was cut off at the end is left out, as W&B's client does."""
    position, parts = _FILE_HEADER, b""
    while position + _PIECE.size <= len(content):
        left = _BLOCK - position % _BLOCK
        if left < _PIECE.size:
            position += left
            continue
        _, length, kind = _PIECE.unpack_from(content, position)
        position += _PIECE.size
        parts += content[position : position + length]
        position += length
        if kind in {_FULL, _LAST}:
            yield parts
            parts = b""


def _packed(records: list[bytes]) -> bytes:
    """Return records in the format that follows the file's header."""
    out = bytearray()
    for data in records:
        rest, first = memoryview(data), True
        while first or rest:
            left = _BLOCK - (_FILE_HEADER + len(out)) % _BLOCK
            if left < _PIECE.size:
                out += bytes(left)
                continue
            piece, rest = rest[: left - _PIECE.size], rest[left - _PIECE.size :]
            kind = (_LAST if not rest else _MIDDLE) if not first else (_FULL if not rest else _FIRST)
            out += _PIECE.pack(zlib.crc32(bytes([kind]) + piece), len(piece), kind) + piece
            first = False
    return bytes(out)

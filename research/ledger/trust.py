"""Trust in records. Training a record can contact a bucket and run code that the record names.

Your own records are trusted. A record is your own if it is in a sweep whose ledger is valid and agrees with it, or if
``research train`` or ``ablate`` wrote it on this machine; the hashes of these are in ``CACHE/own``.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from research.errors import UserError
from research.ledger.log import Ledger
from research.ledger.records import TrialRecord
from research.store.layout import CONFIG, RECORD, SweepFolder, sweep_around
from research.store.mirror import cache_root
from research.store.object_store import is_url
from vae.durable import LARGE_TEXT, read_file
from vae.external import locate, named_parts

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Foreign:
    """A record, or the config of a model, that no sweep or run of this user has written."""

    configs: list[Any]  # JSON, not validated
    data_dir: str | None

    def would(self, *, contact: bool) -> list[str]:
        """Return the effects of training it, as text. ``contact``: the data would be read from the recorded place.

        Nothing is contacted or run to answer this.
        """
        found = []
        if contact and self.data_dir is not None and is_url(self.data_dir):
            found.append(f"contact {self.data_dir!r} with your credentials")
        for path in named_parts(self.configs):
            file = locate(path)
            found.append(f"run the external part {path!r} ({'which is not here' if file is None else repr(str(file))})")
        return found


def foreign(path: Path, *, stacked: bool = False) -> Foreign | None:
    """Return the record at ``path`` if it is from elsewhere; None if it is trusted.

    A sweep's directory, a record of your own, and a config outside a model folder are trusted. The result is also None
    for a file that cannot be read, because the verb refuses it. ``stacked``: the other configs of its stack are
    trained, too.
    """
    if SweepFolder(path).is_sweep:
        return None  # a sweep is verified when it is opened
    path = path.resolve()
    of_folder = path.is_dir() or path.name == CONFIG
    file = (path if path.is_dir() else path.parent) / RECORD if of_folder else path
    content = _content(file)
    # Read with the same parser as the verbs: if a key occurs twice, another parser may take the other value.
    record = _record(content)
    if record is None and not path.is_dir():
        return None
    configs: list[Any] = [] if record is None else [record.config]
    if of_folder:
        configs.append(_json(_content(file.with_name(CONFIG))))
    if record is not None and record.stacked is not None and stacked:
        configs += record.stacked.configs
    configs = [config for config in configs if config is not None]
    if record is not None and _is_own(file, content, record, configs):
        return None
    # A verb that is given a config does not read the record beside it.
    return Foreign(configs, None if record is None or path.name == CONFIG else record.data_dir)


def remember(record: bytes) -> None:
    """Remember that this user has written ``record``. If this cannot be stored, the user is asked later."""
    with contextlib.suppress(OSError):
        mark = _mark(record)
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()


def _is_own(file: Path, content: bytes, record: TrialRecord, configs: list[Any]) -> bool:
    """Return True if ``record``, read from ``file``, is trusted and names no other configs than ``configs``."""
    if _mark(content).exists():
        return all(config == record.config for config in configs)
    sweep = sweep_around(file.parent)
    if sweep is None:
        return False
    try:
        ledger = Ledger.open(sweep.path)
    except UserError:
        return False
    known = [view.created.config for view in ledger.trials.values()]
    return record.data_dir == ledger.settings.data_dir and all(config in known for config in configs)


def _mark(record: bytes) -> Path:
    return cache_root() / "own" / hashlib.sha256(record).hexdigest()


def _content(file: Path) -> bytes:
    try:
        return read_file(file, LARGE_TEXT)
    except OSError:
        return b""


def _record(content: bytes) -> TrialRecord | None:
    try:
        return TrialRecord.from_json(content, "")
    except UserError:
        return None


def _json(content: bytes) -> Any:  # noqa: ANN401 - any JSON
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None

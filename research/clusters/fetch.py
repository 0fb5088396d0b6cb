"""Fetch a sweep from a cluster. The local copy is complete and verified, or it does not exist."""

from __future__ import annotations

import contextlib
import os
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from research.clusters.access import is_address, rsync_down
from research.errors import CorruptFile, UserError
from research.ledger.log import Ledger
from research.store.folders import remove_folder, verify_folder
from research.store.layout import NAMES, SweepFolder
from research.store.mirror import local
from research.store.object_store import is_url
from vae.durable import LARGE_TEXT, read_file, sync_directory

if TYPE_CHECKING:
    from pathlib import Path

# Not copied: checkpoints of unfinished trials, which only the cluster uses; the lock of a process; scratch files. The
# mark of the ledger's length is not copied either: it is copied later than the ledger, so it could be ahead of the
# copy.
_STAYS = [f"{NAMES.trials}/", f"{NAMES.ray}/", f"/{NAMES.lock}", str(NAMES.latest_event), ".*.tmp"]
_ATTEMPTS = 3  # a running sweep may replace a model while it is copied


@dataclass(frozen=True)
class Fetched:
    """A fetched sweep."""

    directory: Path
    events: int
    new: int  # events that the earlier copy did not have
    models: int


def fetch(cluster: str, name: str, *, storage: str, to: Path) -> Fetched:
    """Copy the sweep ``name`` of the cluster to ``to/name``.

    The files are copied to a folder beside it and verified there. An interrupted fetch leaves the earlier copy as it
    was, and the next fetch continues. Local additions, such as looks and reports, stay.

    Raises:
        UserError: this cluster or storage cannot be fetched from, or the local copy has events that the cluster lacks.
        CorruptFile: the copied files are damaged, also after several attempts.
        LostConnection: the transfer was interrupted.

    """
    target, staged = to / name, to / f".{name}.coming"
    previous = to / f".{name}.previous"
    to.mkdir(parents=True, exist_ok=True)
    if previous.exists() and not target.exists():
        previous.rename(target)  # an earlier fetch was killed between the two renames below
    if not staged.exists() and target.exists():
        shutil.copytree(target, staged, copy_function=os.link, symlinks=True)  # rsync replaces files that differ
    staged.mkdir(exist_ok=True)
    shutil.rmtree(SweepFolder(staged).models, ignore_errors=True)  # the set of kept models may have changed
    for attempt in range(_ATTEMPTS):
        try:
            _bring(cluster, f"{storage.rstrip('/')}/{name}", staged)
        except UserError:
            with contextlib.suppress(OSError):
                staged.rmdir()  # it is empty if nothing was copied
            raise
        try:
            events, models = _verify(staged)
            break
        except CorruptFile:
            if attempt == _ATTEMPTS - 1:
                raise
    before = _same_past(target, staged)
    sync_directory(staged)
    if previous.exists():
        remove_folder(previous)
    if target.exists():
        target.rename(previous)
    staged.rename(target)
    sync_directory(to)
    if previous.exists():
        remove_folder(previous)
    return Fetched(directory=target, events=events, new=events - before, models=models)


def _bring(cluster: str, source: str, staged: Path) -> None:
    """Copy the folder ``source`` of the cluster into ``staged``, from the object store or through rsync."""
    if is_url(source):
        # Read from this machine's mirror of the store, which holds events, models and looks.
        shutil.copytree(local(source), staged, copy_function=_copy_anew, dirs_exist_ok=True)
    elif is_address(cluster):
        raise UserError(
            f"a dashboard's address ({cluster}) brings no files: give the launcher's file, or copy {source} by your own "
            "means (rsync, kubectl cp) and see with research show that it is whole"
        )
    else:
        rsync_down(cluster, source, staged, _STAYS)


def _copy_anew(source: str, target: str) -> None:
    """Copy a file. The target is replaced, not written to, because it may be a hard link into the local copy."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(target)  # noqa: PTH108 - copytree's paths are text
    shutil.copyfile(source, target)


def _verify(sweep: Path) -> tuple[int, int]:
    """Compare each event and model with its hash, and return their numbers."""
    ledger = Ledger.open(sweep)
    models = 0
    if ledger.folder.models.is_dir():
        for folder in ledger.folder.models.iterdir():
            verify_folder(folder)
            models += 1
    if ledger.folder.finalists.path.is_dir():
        _verify(ledger.folder.finalists.path)
    return len(ledger), models


def _same_past(target: Path, staged: Path) -> int:
    """Return the number of events of the local copy. A local event that the cluster does not have is refused."""
    events = SweepFolder(target).events()
    for event in events:
        twin = SweepFolder(staged).ledger / event.name
        if not twin.is_file() or read_file(twin, LARGE_TEXT) != read_file(event, LARGE_TEXT):
            raise UserError(
                f"{target} has gone its own way since it was fetched ({event.name} is not the cluster's): move it away, "
                "or choose another --to"
            )
    return len(events)

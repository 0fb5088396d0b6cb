"""A sweep of a cluster, brought home: whole and verified, or not there."""

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

# Checkpoints of unfinished trials are of use on the cluster alone; the lock is a process's; the rest is scratch.
# So does the mark of the ledger's length: copied after the ledger of a sweep that runs, it would be ahead of the copy.
_STAYS = [f"{NAMES.trials}/", f"{NAMES.ray}/", f"/{NAMES.lock}", str(NAMES.latest_event), ".*.tmp"]
_ATTEMPTS = 3  # a sweep that runs may change a model while it is copied


@dataclass(frozen=True)
class Fetched:
    """A fetched sweep."""

    directory: Path
    events: int
    new: int  # events that were not there before
    models: int


def fetch(cluster: str, name: str, *, storage: str, to: Path) -> Fetched:
    """Bring the sweep ``name`` to ``to/name``.

    What comes is first put beside it and verified there: a fetch that is cut off leaves what was there before, and
    the next one goes on with what has come. What was added at home, such as looks and reports, stays.

    Raises:
        UserError: it can't be fetched this way, or the copy at home has gone its own way.
        CorruptFile: what came is damaged, again and again.
        LostConnection: the transfer was cut off.

    """
    target, staged = to / name, to / f".{name}.coming"
    previous = to / f".{name}.previous"
    to.mkdir(parents=True, exist_ok=True)
    if previous.exists() and not target.exists():
        previous.rename(target)  # killed between the two renames below
    if not staged.exists() and target.exists():
        shutil.copytree(target, staged, copy_function=os.link, symlinks=True)  # rsync writes anew what differs
    staged.mkdir(exist_ok=True)
    shutil.rmtree(SweepFolder(staged).models, ignore_errors=True)  # those that are kept may be others by now
    for attempt in range(_ATTEMPTS):
        try:
            _bring(cluster, f"{storage.rstrip('/')}/{name}", staged)
        except UserError:
            with contextlib.suppress(OSError):
                staged.rmdir()  # nothing came, so nothing is left
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
    """Copy what is in the cluster's folder ``source`` into ``staged``. Each kind of storage has its way."""
    if is_url(source):
        # This machine's mirror of the sweep: events, models and looks, as the store has them.
        shutil.copytree(local(source), staged, copy_function=_copy_anew, dirs_exist_ok=True)
    elif is_address(cluster):
        raise UserError(
            f"a dashboard's address ({cluster}) brings no files: give the launcher's file, or copy {source} by your own "
            "means (rsync, kubectl cp) and see with research show that it is whole"
        )
    else:
        rsync_down(cluster, source, staged, _STAYS)


def _copy_anew(source: str, target: str) -> None:
    """Copy a file, never into one that the copy at home shares."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(target)  # noqa: PTH108 - copytree's paths are text
    shutil.copyfile(source, target)


def _verify(sweep: Path) -> tuple[int, int]:
    """Return how many events and models there are, after each was read and compared with its hash."""
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
    """Return how many events the copy at home has; refused where one of them is not the cluster's."""
    events = SweepFolder(target).events()
    for event in events:
        twin = SweepFolder(staged).ledger / event.name
        if not twin.is_file() or read_file(twin, LARGE_TEXT) != read_file(event, LARGE_TEXT):
            raise UserError(
                f"{target} has gone its own way since it was fetched ({event.name} is not the cluster's): move it away, "
                "or choose another --to"
            )
    return len(events)

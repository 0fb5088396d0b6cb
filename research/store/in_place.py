"""The check that a sweep's directory is still there while a driver and its workers write into it.

A directory that is renamed or removed under a driver must not be made again by the next one that writes a file. The
first event of the ledger is what makes a directory a sweep's, so it is looked at before and after each write.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING

from research.errors import StorageError
from research.store.layout import NAMES, SweepFolder
from research.store.mirror import store_of
from vae.durable import LARGE_TEXT, open_file, sync_directory

if TYPE_CHECKING:
    from pathlib import Path

_SEAL = slice(-67, -3)  # of the bytes of an event: its SHA-256
_STORE_ASKED_S = 15.0
_REMEDY = "put it back and resume it, or resume it where it is now"


class SweepGoneError(StorageError):
    """The sweep's directory was moved, removed or replaced while it was written to."""


def refuse_gone(directory: Path, identity: str | None = None) -> None:
    """Refuse to write into ``directory`` where the sweep's first event is not in it any more.

    ``identity``: the SHA-256 of that event; None: any sweep's will do.

    Raises:
        SweepGoneError: naming the file that is missing, or is another sweep's.

    """
    first = SweepFolder(directory).event(0)
    try:
        with open_file(first, LARGE_TEXT) as file:
            if identity is None:
                return
            file.seek(_SEAL.start, os.SEEK_END)
            found = file.read().decode(errors="replace")[: _SEAL.stop]
    except OSError as error:
        raise SweepGoneError(
            f"{first} can't be read any more ({error.strerror}): the sweep was moved or removed while it ran; {_REMEDY}"
        ) from error
    if found != identity:
        raise SweepGoneError(
            f"{first} is of another sweep by now: this one was moved or removed while it ran; {_REMEDY}"
        )


class InPlace:
    """Watches over one sweep's directory and, of a sweep in an object store, over its folder there."""

    def __init__(self, directory: Path) -> None:
        """Nothing is looked at yet."""
        self.directory = directory
        self.store = store_of(directory)
        self.asked = time.monotonic()  # the store, whether the first event is there

    def check(self, identity: str, *, now: bool = True) -> None:
        """Refuse to write where the first event with the SHA-256 ``identity`` is gone; see :func:`refuse_gone`.

        ``now`` False: an answer of the store's that is some seconds old will do, as each question costs a request.
        """
        refuse_gone(self.directory, identity)
        if self.store is None or (not now and time.monotonic() - self.asked < _STORE_ASKED_S):
            return
        self.asked = time.monotonic()
        name = str(NAMES.event(0))
        try:
            content = self.store.read(name)
        except FileNotFoundError:
            content = b""
        if content[_SEAL] != identity.encode():
            raise SweepGoneError(
                f"{self.store.url}/{name} is gone, or of another sweep: the sweep was removed while it ran"
            )


def make_below(root: Path, relative: str) -> Path:
    """Make the folder ``root/relative`` and those above it, but never ``root`` itself; return it.

    Raises:
        FileNotFoundError: there is no ``root``.

    """
    place = root
    for part in relative.split("/"):
        place /= part
        try:
            place.mkdir()
        except FileExistsError:
            continue
        sync_directory(place.parent)
    return place


def remove_empty(directory: Path) -> None:
    """Remove the empty folders that a late write has made again for a sweep that is gone. Files stay."""
    if SweepFolder(directory).event(0).exists():
        return
    for folder, _, _ in os.walk(directory, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(folder)  # noqa: PTH106 - walked as text

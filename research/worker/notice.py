"""A worker that is told to end first saves what it trains, in the middle of the epoch.

It is told in two ways. SIGTERM is how batch systems, and machines that are about to be taken back, give notice. What remains
then is seconds, sometimes less: a node's own end kills its workers too, and a save that is cut off leaves the checkpoint
before it. A driver that is to stop writes a file, which all nodes of a sweep on a disk see; it waits a while.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_LOOK_EVERY_S = 1.0
_told = threading.Event()
_heard = threading.Event()  # somebody looks at ``told``, and saves


class Preempted(Exception):
    """A trial was left where it is, as its worker was told to end. The message is the line for the ledger."""


def listen() -> None:
    """Take SIGTERM from now on: as a notice where one is :func:`heard`, else, and a second time, as before.

    To be called in the process's first thread: Python lets no other set a handler.
    """
    before = signal.getsignal(signal.SIGTERM)

    def handle(number: int, frame: object) -> None:
        if _heard.is_set() and not _told.is_set():
            _told.set()
        elif callable(before):
            before(number, frame)  # type: ignore[arg-type] # a frame
        else:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    signal.signal(signal.SIGTERM, handle)


def told() -> bool:
    """Whether notice has been given."""
    return _told.is_set()


@contextmanager
def heard() -> Iterator[None]:
    """A block that looks at :func:`told`, saves what it has, and ends."""
    _heard.set()
    try:
        yield
    finally:
        _heard.clear()


class StopFile:
    """The driver's file, looked for once a second: a look is a request to a server where the disk is one."""

    def __init__(self, path: str | None) -> None:
        """None: there will be none."""
        self.path = None if path is None else Path(path)
        self.next_look = time.monotonic() + _LOOK_EVERY_S

    def there(self) -> bool:
        """Whether it was there at the last look."""
        if self.path is None or time.monotonic() < self.next_look:
            return False
        self.next_look = time.monotonic() + _LOOK_EVERY_S
        return self.path.exists()

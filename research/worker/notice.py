"""A worker that has to end saves its training state first, in the middle of an epoch.

It learns of the end in two ways. SIGTERM is how batch systems, and machines that are about to be taken back, give notice. The worker
then has a few seconds at most. If the save is cut off, the checkpoint before it stays. A driver that is to stop writes a file,
which all nodes of a sweep on a shared disk see, and waits for a while.
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
_heard = threading.Event()  # a trial looks at ``told`` and can save its state


class Preempted(Exception):
    """Raised when a trial has paused because its worker has to end. The message is the reason for the ledger."""


def listen() -> None:
    """Handle SIGTERM from now on: as a notice inside :func:`heard`; otherwise, and a second time, as before.

    Call this in the main thread, because Python lets no other thread set a handler.
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
    """Return True if SIGTERM has arrived."""
    return _told.is_set()


@contextmanager
def heard() -> Iterator[None]:
    """Mark a block that looks at :func:`told`, and then saves its state and ends."""
    _heard.set()
    try:
        yield
    finally:
        _heard.clear()


class StopFile:
    """The file by which the driver asks for a pause. It is looked for once a second, because the disk may be a server."""

    def __init__(self, path: str | None) -> None:
        """``path``: where the file will appear; None if it never will."""
        self.path = None if path is None else Path(path)
        self.next_look = time.monotonic() + _LOOK_EVERY_S

    def there(self) -> bool:
        """Return True if the file was there at the last look."""
        if self.path is None or time.monotonic() < self.next_look:
            return False
        self.next_look = time.monotonic() + _LOOK_EVERY_S
        return self.path.exists()

"""One driver per sweep: an advisory lock on its directory that the kernel lets go of when its holder dies."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from datetime import UTC, datetime
from io import TextIOWrapper
from pathlib import Path
from typing import IO, TYPE_CHECKING, Self

from research.errors import UserError
from research.store.layout import SweepFolder
from vae.durable import check_file, open_file

if TYPE_CHECKING:
    from types import TracebackType


class SweepLock:
    """Context manager that holds ``DIR/lock``; the file names its holder, and is empty if there is none.

    Entering raises ``UserError`` naming the process that holds it. A lock whose holder died is free, whatever
    its file says: the lock is the kernel's (``flock``), the text is for people.
    """

    def __init__(self, directory: str | Path) -> None:
        self.path = SweepFolder(Path(directory)).lock
        self._file: IO[str] | None = None

    def __enter__(self) -> Self:
        try:
            if os.path.lexists(self.path):
                check_file(self.path)  # a pipe would keep the driver waiting
            file = self.path.open("a+")
        except OSError as error:
            raise UserError(f"{self.path} can't be written ({error.strerror})") from error
        try:
            _take(file)
        except BlockingIOError as error:
            file.seek(0)
            holder = _holder(file.read())
            file.close()
            raise UserError(f"{self.path.parent} is in use by {holder}: wait for it, or stop it first") from error
        except OSError as error:
            file.close()
            raise UserError(f"{self.path} can't be locked ({error.strerror}): choose another storage") from error
        file.truncate(0)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        json.dump({"pid": os.getpid(), "host": socket.gethostname(), "time": now}, file)
        file.flush()
        self._file = file
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            # Emptied, not removed: whoever waits on this file must not come to hold a name that is gone.
            self._file.truncate(0)
            self._file.close()
            self._file = None

    @property
    def descriptors(self) -> tuple[int, ...]:
        """The descriptors that a child process inherits. The lock is then held until the child has ended too."""
        return () if self._file is None else (self._file.fileno(),)


def holder_of(directory: str | Path) -> str | None:
    """Return the holder of the sweep's lock in words; None if it is free.

    Nothing is written. To ask, a shared lock is held for an instant, which a driver that starts just then waits out.
    Locks of other machines are seen where the file system carries them.
    """
    try:
        with TextIOWrapper(open_file(SweepFolder(Path(directory)).lock)) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return _holder(file.read())
    except OSError:
        return None  # no lock was ever taken there, or it can't be read
    return None


def _take(file: IO[str]) -> None:
    """Lock ``file``, at once or within a tenth of a second: whoever only asks holds it for less."""
    for wait in (0.02, 0.08, None):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if wait is None:
                raise
            time.sleep(wait)
        else:
            return


def _holder(text: str) -> str:
    try:
        facts = json.loads(text)
        return f"process {facts['pid']} on {facts['host']} (since {facts['time']})"
    except (ValueError, KeyError, TypeError, RecursionError):
        return "another process"  # it has the lock and is about to write its name

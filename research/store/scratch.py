"""Temporary folders that go with the process that made them, also where it was killed.

A folder is held by a lock that the kernel lets go of when its process dies. So whoever comes next can tell the
folders of dead processes, and removes them: nobody else would.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def temporary_folder(prefix: str) -> Iterator[tuple[Path, int]]:
    """Make a folder for this user alone (0700), and remove it in the end; first those that dead processes left.

    Its name is short, as sockets are put there whose paths may have 107 characters. The number beside it is the
    descriptor that holds the lock: a child process that inherits it keeps the folder.
    """
    remove_leftovers(prefix)
    folder = Path(tempfile.mkdtemp(prefix=f"{prefix}{os.getpid()}-"))
    held = os.open(folder, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    try:
        yield folder, held
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(held)


def alive(pid: int) -> bool:
    """Return True if there is a process with the number ``pid`` on this machine."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # another user's
        return True
    return True


def remove_leftovers(prefix: str) -> None:
    """Remove the folders called ``prefix`` and a process's number, whose process is dead.

    A folder is another's as long as there is a process of the number in its name, or one that holds its lock: a
    process in another container, which shares the folder for temporary files but not the numbers.
    """
    for folder in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        pid = folder.name.removeprefix(prefix).partition("-")[0]
        if not pid.isdigit() or alive(int(pid)):
            continue
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:
            continue  # another user's, or gone
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        except BlockingIOError:
            pass
        finally:
            os.close(descriptor)

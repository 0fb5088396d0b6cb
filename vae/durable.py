"""Writing files durably, and reading files of unknown origin safely.

A file is on the disk when the call that wrote it returns. This module does not import torch, because the ledger uses it
too.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from io import BytesIO, TextIOWrapper
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from io import BufferedReader
    from pathlib import Path

# The largest file of each kind that is read, in bytes. Real files are far smaller. Without a bound, a damaged or forged
# file (a sparse one costs its author nothing) would take all of the memory.
SMALL_FILE = 16 << 20  # a config, a manifest, a mark, a space
LARGE_TEXT = 256 << 20  # an event or a record, which has a row for each epoch
PICTURE = 64 << 20
_PIECE = 1 << 20
DATA = 1 << 50  # data sets; their readers have limits of their own
WEIGHTS = 16 << 30  # weights and training states, which are hashed piece by piece


def open_file(path: str | Path, limit: int = SMALL_FILE) -> BufferedReader:
    """Open the regular file at ``path``, or at the end of its symbolic links, for reading. This never waits.

    Raises:
        OSError: The file can't be opened, is a directory, pipe, device or socket, or has more than ``limit`` bytes.
            ``strerror`` has the reason, and ``filename`` is ``path``.

    """
    _check(os.stat(path), path, limit)  # noqa: PTH116 - paths as text, for speed. Opening a device may act on it
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _check(os.fstat(descriptor), path, limit)  # the name may mean another file by now
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_file(path: str | Path, limit: int = SMALL_FILE) -> bytes:
    """Return the content of the regular file at ``path``; raises ``OSError`` as :func:`open_file` does."""
    with open_file(path, limit) as file:
        # Read by the file's size, not by the limit, because all requested bytes are allocated before the first is read.
        content = file.read(os.fstat(file.fileno()).st_size + 1)
        while len(content) <= limit and (more := file.read(_PIECE)):
            content += more
    if len(content) > limit:  # the file has grown, or reports a wrong size
        raise _too_large(path, len(content), limit)
    return content


def read_text(path: str | Path, limit: int = SMALL_FILE) -> str:
    """Return the UTF-8 text of the regular file at ``path``, with every end of line as a newline.

    Raises:
        OSError: As in :func:`open_file`.
        UnicodeDecodeError: The file is not UTF-8.

    """
    with TextIOWrapper(BytesIO(read_file(path, limit)), encoding="utf-8") as file:
        return file.read()


def check_file(path: str | Path) -> None:
    """Raise ``OSError`` as :func:`open_file` does if a library that opens ``path`` by its name would not find a file."""
    open_file(path, DATA).close()


def hash_file(path: str | Path, limit: int = WEIGHTS) -> str:
    """Return the SHA-256 of the regular file at ``path``, in hex, with constant memory; raises as :func:`open_file`."""
    with open_file(path, limit) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_file(path: Path, content: bytes) -> None:
    """Write and sync one file. Its name is durable after ``sync_directory`` of its folder."""
    try:
        with path.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:  # the system's error of a write does not name the file
        raise OSError(error.errno, error.strerror, str(path)) from error


def sync_directory(directory: Path) -> None:
    """Make the names in ``directory`` durable."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _check(status: os.stat_result, path: str | Path, limit: int) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, "it is a directory, not a file", str(path))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.ENXIO, f"it is a {_kind(status.st_mode)}, not a regular file", str(path))
    if status.st_size > limit:
        raise _too_large(path, status.st_size, limit)


def _too_large(path: str | Path, size: int, limit: int) -> OSError:
    return OSError(errno.EFBIG, f"it has {size:,} bytes, and a file of its kind has at most {limit:,}", str(path))


def _kind(mode: int) -> str:
    kinds = {stat.S_IFIFO: "named pipe", stat.S_IFSOCK: "socket", stat.S_IFCHR: "device", stat.S_IFBLK: "device"}
    return kinds.get(stat.S_IFMT(mode), "special file")

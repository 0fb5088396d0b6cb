"""Files that are on the disk when the call that wrote them returns, and files that are read without trusting their kind.

This module imports no torch: the ledger is written and read with it, too.
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
LARGE_TEXT = 256 << 20  # an event or a record, which have a row for each epoch, or a trial for each line
PICTURE = 64 << 20
_PIECE = 1 << 20
DATA = 1 << 50  # data sets, which are read as far as memory allows, or not at once
WEIGHTS = 16 << 30  # weights and training states, which are hashed piece by piece


def open_file(path: str | Path, limit: int = SMALL_FILE) -> BufferedReader:
    """Open the regular file at ``path``, or the one that a symbolic link leads to, for reading; never waits.

    Raises:
        OSError: the file can't be opened, is a directory, pipe, device or socket, or has more than ``limit`` bytes.
            ``strerror`` says which, and ``filename`` is ``path``.

    """
    _check(os.stat(path), path, limit)  # noqa: PTH116 - paths as text, for speed. Opening a device may act on it
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _check(os.fstat(descriptor), path, limit)  # the name may have changed its meaning since
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_file(path: str | Path, limit: int = SMALL_FILE) -> bytes:
    """Return the content of the regular file at ``path``; raises ``OSError`` as :func:`open_file` does."""
    with open_file(path, limit) as file:
        # By its size, not by the limit: as many bytes as are asked for are set aside before the first is read.
        content = file.read(os.fstat(file.fileno()).st_size + 1)
        while len(content) <= limit and (more := file.read(_PIECE)):
            content += more
    if len(content) > limit:  # the file has grown, or lies about its size
        raise _too_large(path, len(content), limit)
    return content


def read_text(path: str | Path, limit: int = SMALL_FILE) -> str:
    """Return the UTF-8 text of the regular file at ``path``, every end of line as a newline.

    Raises:
        OSError: as :func:`open_file` does. UnicodeDecodeError: the file is no UTF-8.

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
    """Write and sync one file; its name is durable after ``sync_directory`` of its folder."""
    try:
        with path.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:  # of a write the system names no file
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

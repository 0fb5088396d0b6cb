"""Writing files durably, and reading files of unknown origin safely.

A file is on the disk when the call that wrote it returns. This module does not import torch, because the ledger uses it
too.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from contextlib import contextmanager, suppress
from io import BytesIO, TextIOWrapper
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
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


def replace(path: Path, content: bytes, *, sync: bool = True) -> None:
    """Make ``content`` the content of the file ``path``. Readers see the old content or the new, and never a part of it.

    The file is durable when this returns. With ``sync=False`` it may be lost, or be empty, after a power cut. That is
    for files that can be made again.

    Raises:
        OSError: The file can't be written. ``path`` is what it was before.

    """
    try:
        with replacing(path, sync=sync) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error  # not the temporary name, or none


@contextmanager
def replacing(path: Path, *, sync: bool = True) -> Iterator[Path]:
    """Yield a name beside ``path`` for the caller to write a file to. At the end that file takes the place of ``path``.

    If the body raises, the new file is removed and ``path`` is what it was before. A process that is killed may leave a
    file behind whose name begins with a dot and ends with the process's number, a random part and ``.tmp``. ``sync`` is
    as in :func:`replace`.
    """
    temporary = temporary_name(path)
    try:
        yield temporary
        if sync:
            _sync(temporary)
        temporary.replace(path)
    finally:
        with suppress(OSError):  # on a disk that is gone or read-only, the first error is the one to see
            temporary.unlink(missing_ok=True)
    if sync:
        sync_directory(path.parent)


def create_file(path: Path, content: bytes) -> bool:
    """Write a new file, durable when this returns. Return False and write nothing if there is a file ``path`` already.

    Readers see the file complete or not at all. Of several processes that create the same file one gets True. The file
    system must have hard links.

    Raises:
        OSError: The file can't be written.

    """
    temporary = temporary_name(path)
    try:
        write_file(temporary, content)
        os.link(temporary, path)
    except FileExistsError:
        return False
    finally:
        with suppress(OSError):  # as above
            temporary.unlink(missing_ok=True)
    sync_directory(path.parent)
    return True


def temporary_name(path: Path) -> Path:
    """Return a name beside ``path`` that no other process or thread uses."""
    return path.with_name(f".{path.name}.{os.getpid()}-{os.urandom(4).hex()}.tmp")


def sync_directory(directory: Path) -> None:
    """Make the names in ``directory`` durable."""
    _sync(directory)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
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

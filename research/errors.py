"""The errors that a user can resolve, with one line each. Everything else is a bug."""

from __future__ import annotations

import errno
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# A disk that is full, read-only, gone or failing. No trial caused this, and trying again would not help.
STORAGE = frozenset(
    {
        errno.EACCES,
        errno.EDQUOT,
        errno.EIO,
        errno.ENODEV,
        errno.ENOENT,
        errno.ENOSPC,
        errno.ENOTCONN,
        errno.ENOTDIR,
        errno.EPERM,
        errno.EROFS,
        errno.ESTALE,
    }
)

# In addition, the errors for a name that is not a file, or not a file of the expected kind.
FILES = STORAGE | {errno.EFBIG, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENXIO}


class UserError(Exception):
    """One line that names the value, the rule and the remedy. The CLI prints it and exits 2."""


class CorruptFile(UserError):
    """One of our files is torn, altered or missing. The message names it, and nothing of it is used."""


class StorageError(UserError):
    """A disk or object store is full, refuses or can't be reached. Its content is intact: repair it, then resume."""


@contextmanager
def storing(path: Path) -> Iterator[None]:
    """Turn an error of the disk into a ``StorageError`` that names ``path``; other errors pass."""
    try:
        yield
    except OSError as error:
        if error.errno not in STORAGE:
            raise
        raise StorageError(f"{path} can't be written ({error.strerror}): mend that, then resume") from error

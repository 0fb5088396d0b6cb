"""The errors that a user can resolve, with one line each. Everything else is a bug."""

from __future__ import annotations

import errno
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# A disk that is full, read-only, gone or failing: nothing that a trial did, and nothing that another try would mend.
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

# Besides: what a person may have named that is no file, or none of the kind that is asked for.
FILES = STORAGE | {errno.EFBIG, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENXIO}


class UserError(Exception):
    """One line that names the value, the rule and the remedy. The CLI prints it and exits 2."""


class CorruptFile(UserError):
    """A file of ours that is torn, altered or missing: refused by name, never read around."""


class StorageError(UserError):
    """A disk or object store that can't be reached, refuses or is full. What is in it is whole: mended, the work goes on."""


@contextmanager
def storing(path: Path) -> Iterator[None]:
    """Make of a disk that can't take ``path`` a ``StorageError`` that names it; other errors pass."""
    try:
        yield
    except OSError as error:
        if error.errno not in STORAGE:
            raise
        raise StorageError(f"{path} can't be written ({error.strerror}): mend that, then resume") from error

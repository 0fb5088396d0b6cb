"""Makes the paths that a user typed absolute, before any code of theirs runs.

A space may change the working directory. Paths on the command line are relative to the directory that the command was
started in, so that directory is noted at the start, and every path is made absolute from there.
"""

from __future__ import annotations

import os
from pathlib import Path

from research.errors import UserError

STARTED_IN = "RESEARCH_STARTED_IN"  # the same name as in vae.system.places, whose import would slow down every --help


def note_start() -> None:
    """Note the working directory, for this process and those that it starts. For the command line, before all else.

    Raises:
        UserError: the working directory was removed.

    """
    try:
        os.environ[STARTED_IN] = str(Path.cwd())
    except OSError as error:
        raise UserError(
            f"the working directory can't be used ({error.strerror}): change to one that is there"
        ) from None


def here() -> Path:
    """Return the directory that relative paths are relative to."""
    noted = os.environ.get(STARTED_IN)
    return Path(noted) if noted else Path.cwd()


def whole(text: str | Path) -> Path:
    """Return a path that was typed as an absolute one, with ``~`` as the home directory.

    As in a shell, ``~name`` is an ordinary name if there is no such user.

    Raises:
        UserError: the home directory is not known.

    """
    path = Path(text)
    if path.parts[:1] and path.parts[0].startswith("~") and not str(text).startswith("./"):
        try:
            path = path.expanduser()
        except RuntimeError:
            if path.parts[0] == "~":
                raise UserError(
                    f"{str(text)!r} names the home directory, and $HOME is not set: give the path"
                ) from None
    return path if path.is_absolute() else here() / path

"""The directories that relative names are looked for in.

A program of a person's own, such as a search space, may change the working directory. The command line notes in the
environment where it was started, so that a name that was right there stays right, also in the processes it starts.
"""

from __future__ import annotations

import os
from pathlib import Path

STARTED_IN = "RESEARCH_STARTED_IN"


def working_directories() -> list[Path]:
    """Return the working directory, and the one that the command was started in where that is another."""
    noted = os.environ.get(STARTED_IN)
    now = Path.cwd()
    return [now] if not noted or Path(noted) == now else [now, Path(noted)]

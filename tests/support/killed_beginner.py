"""Run by a test: kills ``create`` before each change of the disk, and prints what was left of the sweep.

In a process of its own, which forks while it has one thread only.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

from research.driver.lifecycle import create
from research.ledger.events import TrialsLearned
from research.ledger.log import Ledger
from tests.support.killed_keeper import die_at
from tests.support.synthetic import settings

STEPS = 60  # more than it has


def begin(place: Path) -> None:
    """A sweep that learns from another: two events and a copy of its space."""
    create(place, settings(), ["research", "sweep"], [TrialsLearned(name="other", identity="feed", trials=[])])


def main(storage: Path) -> None:
    """One line of JSON: of each kill the number of events, or None where there is no sweep."""
    found = []
    for step in range(STEPS):
        shutil.rmtree(storage, ignore_errors=True)
        storage.mkdir()
        child = os.fork()
        if child == 0:
            die_at(step)
            begin(storage / "s")
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            assert status == 0, "it failed by itself"
            break
        there = (storage / "s").exists()
        whole = len(Ledger.open(storage / "s")) if there and (storage / "s" / "space.py").exists() else None
        assert there == (whole is not None)
        if not there:
            begin(storage / "s")  # the name is not taken by what is left
            assert len(Ledger.open(storage / "s")) == 2
        found.append(whole)
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

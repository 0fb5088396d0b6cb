"""The sweep's lock: one driver at a time, and a dead one does not stand in the way."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from research.errors import UserError
from research.store.lock import SweepLock
from tests.support.places import ROOT

if TYPE_CHECKING:
    from pathlib import Path

HOLD = """
import sys
from research.store.lock import SweepLock
with SweepLock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_live_holder_is_named_and_a_dead_one_is_succeeded(tmp_path: Path) -> None:
    """The refusal names pid and host; after SIGKILL of the holder the lock is taken over at once."""
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        with (
            pytest.raises(UserError, match=f"process {child.pid} on {socket.gethostname()}"),
            SweepLock(tmp_path),
        ):
            pass
        os.kill(child.pid, signal.SIGKILL)
        assert child.wait(10) == -signal.SIGKILL
    assert str(child.pid) in (tmp_path / "lock").read_text()
    with SweepLock(tmp_path):
        assert f'"pid": {os.getpid()}' in (tmp_path / "lock").read_text()
    assert (tmp_path / "lock").read_text() == ""


def test_the_same_process_can_not_take_it_twice(tmp_path: Path) -> None:
    """Two sweeps of one name in one process collide too; after release it is free again."""
    with SweepLock(tmp_path), pytest.raises(UserError, match="in use by process"), SweepLock(tmp_path):
        pass
    with SweepLock(tmp_path):
        pass


def test_a_directory_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    """Locking where nothing can be written is a UserError, not a traceback."""
    with pytest.raises(UserError, match="can't be written"), SweepLock(tmp_path / "absent"):
        pass

"""SIGTERM to a worker, in a process of its own: heard as a notice where somebody listens, else what it was before."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

from research.driver.stopping import Stop
from tests.support.synthetic import new_ledger

WORKER = """
import os, signal, sys, time
from research.worker import notice

{before}
notice.listen()
def kill():
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.1)
{then}
print("ends", notice.told(), flush=True)
"""
HEARD = "with notice.heard():\n    kill()\n    print(notice.told())\n"


@pytest.mark.parametrize(
    ("before", "then", "code", "output"),
    [
        ("", HEARD, 0, ["True", "ends True"]),
        ("", "kill()", -signal.SIGTERM, []),
        ("", HEARD + "    kill()", -signal.SIGTERM, ["True"]),
        ("", HEARD + "kill()", -signal.SIGTERM, ["True"]),
        ("signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))", "kill()", 7, []),
        ("signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))", HEARD + "    kill()", 7, ["True"]),
    ],
    ids=["heard", "nobody listens", "twice", "after it was heard", "as before", "twice, as before"],
)
def test_a_notice_is_heard_once_and_where_somebody_listens(before, then, code, output):
    """Else the process ends, as it would have."""
    worker = [sys.executable, "-c", WORKER.format(before=before, then=then)]
    ran = subprocess.run(worker, capture_output=True, text=True, timeout=60, check=False)
    assert (ran.returncode, ran.stdout.split("\n")[:-1]) == (code, output), ran.stderr


def test_a_sweep_stops_when_its_trials_are_saved_or_have_had_the_time(tmp_path, monkeypatch):
    """Workers are told by the file, once; what can't save, and what does not run, is not waited for."""
    stop = Stop(new_ledger(tmp_path / "sweep"))
    assert not stop.stop_all()
    stop.signal = signal.SIGINT
    assert stop.stop_all(), "nothing can be saved"
    stop.file, stop.running = tmp_path / "stop", False
    assert stop.stop_all(), "nothing runs"
    assert not stop.file.exists()
    stop.running = True
    assert not stop.stop_all()
    assert stop.file.exists()
    stop.running = False
    assert stop.stop_all(), "all have been left"
    stop.running = True
    now = time.monotonic()
    monkeypatch.setattr(
        "research.driver.stopping.time.monotonic", lambda: now + 100
    )  # a busy machine gives them more than ten seconds
    assert stop.stop_all(), "they have had the time"

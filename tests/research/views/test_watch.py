"""Watching a sweep: what is shown is the ledger's, how it ended is said, and whoever drives it is not disturbed."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
import time
from datetime import datetime, timedelta

import pytest
from rich.console import Console

from research.cli import app as cli
from research.ledger.events import Interrupted
from research.ledger.log import Ledger
from research.store.lock import SweepLock, holder_of
from research.views import watch as watching
from research.views.live import LiveView
from research.views.show import counts
from research.views.watch import Follower, ending_line, watch
from tests.support.synthetic import failed, new_ledger, row, session, trial


def piped():
    """A console that is no terminal."""
    return Console(file=io.StringIO(), width=200)


def said(console):
    """What was printed on it."""
    return console.file.getvalue()


def shown(view):
    """A view's frame as lines of text, without the one that tells the time."""
    console = piped()
    console.print(view.frame(), highlight=False)
    return [line for line in said(console).splitlines() if "elapsed" not in line]


@pytest.fixture
def sweep(tmp_path):
    """Of four trials one is complete, one failed, one runs."""
    ledger = new_ledger(tmp_path / "quick", trials=4)
    for number in range(3):
        ledger.append(trial(number))
        ledger.append(row(number, 1, -100.0 - number))
    ledger.append(row(0, 2, -90.5, "complete"))
    ledger.append(failed(1))
    return ledger


def test_the_frame_is_the_drivers(sweep):
    """A follower that came late shows what the driver's own view shows, row by row."""
    frame = shown(Follower(Ledger.open(sweep.directory), piped()).view)
    assert frame == shown(LiveView(piped(), sweep))
    assert "1 COMPLETE  0 PRUNED  1 FAIL  1 RUNNING  of 4" in frame[0]
    running = next(line.split() for line in frame if line.startswith("    2"))
    assert running[:5] == ["2", "1/10", "-102.00", "81.60", "20.40"]
    assert any(line.startswith("best trial 0  val/elbo -90.50") for line in frame)


def test_it_follows(sweep):
    """Each start and end is one line, also where both were read in one go; nothing is told twice."""
    console = piped()
    follower = Follower(Ledger.open(sweep.directory), console)
    follower.catch_up()
    assert said(console) == ""
    sweep.append(trial(3))
    sweep.append(row(3, 1, -80.0, "pruned", reason="not in the best 1/3 of 5 at epoch 1"))
    follower.catch_up()
    follower.catch_up()
    lines = said(console).splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("trial 3 starts: ")
    assert lines[1].startswith("trial 3 pruned at epoch 1 | val/elbo -80.00 | best -80.00 (trial 3) | 3 of 4 ended")
    assert counts(follower.ledger) == counts(sweep)
    assert follower.view.rows_seen == sum(len(view.rows) for view in sweep.trials.values())


def test_its_clock_is_the_sessions(sweep):
    """Elapsed since the driver began, not since somebody began to look."""
    began, last = map(datetime.fromisoformat, sweep.spans[-1])

    def elapsed():
        follower = Follower(sweep, piped(), now=lambda: began + timedelta(seconds=100))
        return follower, time.monotonic() - follower.view.began

    with SweepLock(sweep.directory):
        follower, seconds = elapsed()
    assert seconds == pytest.approx(100, abs=1)
    # Where nobody drives it, it stands still.
    assert elapsed()[1] == pytest.approx((last - began).total_seconds(), abs=1)
    assert follower.view.ended_before == 0
    assert "left" in follower.view.time_left()


def test_a_sweep_that_has_ended(sweep):
    """Said with how many failed; nobody waits."""
    sweep.append(trial(3))
    sweep.append(failed(3, "config", "no config"))
    sweep.append(row(2, 2, -95.0, "complete"))
    console = piped()
    ledger = Ledger.open(sweep.directory)
    assert watch(ledger, console) == "ended"
    assert ending_line(ledger, "ended") == "the sweep has ended: 4 trials, 2 of them failed"


def test_a_sweep_that_was_stopped(sweep):
    """By what, how much is left, and how to go on; a session later it runs again."""
    sweep.append(Interrupted(reason="SIGINT"))
    ledger = Ledger.open(sweep.directory)
    assert watch(ledger, piped()) == "interrupted"
    line = ending_line(ledger, "interrupted")
    assert "was stopped (SIGINT); 2 trials are left" in line
    assert f"research resume {sweep.directory}" in line
    sweep.append(session(1))
    ledger.refresh()
    assert Follower(ledger, piped()).ending() is None


def test_a_driver_that_died(sweep, monkeypatch):
    """A free lock and no last word: said after a while, not at once, because a new driver may be starting."""
    at = [datetime.fromisoformat(sweep.updated)]
    follower = Follower(Ledger.open(sweep.directory), piped(), now=lambda: at[0])
    assert follower.ask_for_driver() is None
    at[0] += timedelta(seconds=watching.GONE_SECONDS)
    assert follower.ask_for_driver() == "gone"
    monkeypatch.setattr(watching, "GONE_SECONDS", 0.0)
    ledger = Ledger.open(sweep.directory)
    assert watch(ledger, piped()) == "gone"
    assert "has no driver: it gave up or was killed" in ending_line(ledger, "gone")


def test_a_driver_that_is_silent(sweep):
    """It is told once, with who holds the lock, and again only after something was written."""
    console = piped()
    with SweepLock(sweep.directory):
        later = datetime.fromisoformat(sweep.updated) + timedelta(seconds=watching.SILENT_SECONDS + 60)
        follower = Follower(Ledger.open(sweep.directory), console, now=lambda: later)
        assert follower.ask_for_driver() is None
        assert follower.ask_for_driver() is None
    assert said(console).count("nothing was written for 6 min") == 1
    assert f"process {os.getpid()}" in said(console)


def test_asking_for_the_lock_disturbs_nobody(tmp_path):
    """The holder keeps it and its file as they are; one who comes while others ask gets it."""
    assert holder_of(tmp_path) is None
    assert not (tmp_path / "lock").exists()
    with SweepLock(tmp_path):
        before = (tmp_path / "lock").read_bytes()
        assert f"process {os.getpid()} on " in holder_of(tmp_path)
        assert (tmp_path / "lock").read_bytes() == before
    assert holder_of(tmp_path) is None
    done = threading.Event()

    def ask():
        while not done.is_set():
            holder_of(tmp_path)
            time.sleep(0.001)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        for _ in range(100):
            with SweepLock(tmp_path):
                pass
    finally:
        done.set()
        asking.join()


def test_on_a_terminal(sweep):
    """The table is drawn, and taken off the screen at the end."""
    console = Console(file=io.StringIO(), width=160, force_terminal=True)
    follower = Follower(Ledger.open(sweep.directory), console)
    follower.catch_up()
    follower.view.close()
    assert "RUNNING" in said(console)
    assert follower.view.live is None


def contents(directory):
    """Every file below, with what is in it."""
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_once(sweep, capsys, monkeypatch):
    """One frame, whose figures are the ledger's, and that nobody drives it; nothing is written."""
    before = contents(sweep.directory)
    monkeypatch.setattr(sys, "argv", ["research", "watch", str(sweep.directory), "--once"])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    out = capsys.readouterr().out
    assert stopped.value.code == 0
    assert "of 4" in out
    assert "-102.00" in out
    assert "has no driver" in out
    with SweepLock(sweep.directory), pytest.raises(SystemExit):
        cli.main()
    assert "has no driver" not in capsys.readouterr().out
    (sweep.directory / "lock").unlink()
    assert contents(sweep.directory) == before


def test_no_sweep(tmp_path, capsys, monkeypatch):
    """Refused in one line."""
    monkeypatch.setattr(sys, "argv", ["research", "watch", str(tmp_path)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 2
    assert "not a sweep directory" in capsys.readouterr().err


def test_leaving(sweep):
    """Ctrl-C ends the watching with 130, and nothing of the sweep has changed."""
    with SweepLock(sweep.directory):
        before = contents(sweep.directory)
        command = [sys.executable, "-m", "research.cli", "watch", str(sweep.directory)]
        watcher = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            # The first line shows that it has begun.
            assert "1 COMPLETE, 0 PRUNED, 1 FAIL, 1 RUNNING of 4 trials" in watcher.stdout.readline()
            watcher.send_signal(signal.SIGINT)
            out, err = watcher.communicate(timeout=60)
        finally:
            watcher.kill()
        assert watcher.returncode == 130, err
        assert "left; the sweep is as it was" in out
        assert contents(sweep.directory) == before


def test_skipped_draws_are_no_trials(tmp_path):
    """A draw that the space skipped is not shown as started or ended, and doesn't count."""
    ledger = new_ledger(tmp_path / "quick", trials=1)
    console = piped()
    follower = Follower(Ledger.open(ledger.directory), console)
    ledger.append(trial(0))
    ledger.append(failed(0, "impossible", "skipped"))
    follower.catch_up()
    assert said(console) == ""
    assert follower.ending() is None

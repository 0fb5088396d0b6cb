"""``research sync`` killed in the middle of an upload: called again, the service has every row once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from research.tracking.resend import copy_without_rows
from research.tracking.sink import Sink
from tests.support.services import command_line, family, start
from tests.support.synthetic import new_ledger
from tests.support.wandb_help import append_trial
from tests.support.wandb_reader import read_run
from tests.support.wandb_server import start_server

EPOCHS = 60


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    """A sweep of two trials whose runs were written offline."""
    (tmp_path / "home").mkdir()
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    ledger = new_ledger(tmp_path / "sweep")
    append_trial(ledger, 0, EPOCHS)
    append_trial(ledger, 1, 5)
    assert Sink.start(ledger.directory, "offline").close(120.0) == []
    return ledger


@pytest.mark.fault("13 W&B upload killed")
@pytest.mark.faults
@pytest.mark.long
@pytest.mark.parametrize("victims", ["all", "ours"])
def test_a_killed_upload_is_finished_without_duplicates(sweep, monkeypatch, tally, victims):
    """SIGKILL with some rows there, of all processes or of ours alone while W&B's client goes on sending."""
    server, received = start_server()
    online = {"WANDB_BASE_URL": f"http://127.0.0.1:{server.server_port}", "WANDB_API_KEY": "a" * 40}
    first = f"quick-{sweep.identity[:8]}-0000"
    try:
        received.delay_s = 0.5
        process = start("sync", sweep.directory, **online)
        while not received.history(first):
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.01)
        ours = family(process.pid)
        for pid in ours if victims == "all" else ours[:1]:
            os.kill(pid, signal.SIGKILL)
        process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL
        tally.happened()
        received.delay_s = 0.0
        for name, value in online.items():
            monkeypatch.setenv(name, value)
        while True:
            again = subprocess.run(
                [sys.executable, "-m", "research.cli", "sync", str(sweep.directory)],
                capture_output=True, text=True, timeout=200, check=False,
            )  # fmt: skip
            if again.returncode != 2:
                break
            assert "is in use by" in again.stderr, again.stderr  # by the client that was left behind
            time.sleep(0.5)
        assert again.returncode == 0, again.stderr
        rows = {number: [line["_step"] for line in received.history(f"{first[:-1]}{number}")] for number in (0, 1)}
        tally.losing(len(set(range(EPOCHS)) - set(rows[0])))
        assert rows == {0: list(range(EPOCHS)), 1: list(range(5))}
        calls = len(received.calls)
        assert "nothing to upload" in subprocess.run(
            [sys.executable, "-m", "research.cli", "sync", str(sweep.directory)],
            capture_output=True, text=True, timeout=200, check=True,
        ).stdout  # fmt: skip
        assert len(received.calls) == calls
        assert not any(map(command_line, ours))
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.slow
@pytest.mark.long
def test_a_copy_without_rows_is_the_run_otherwise(sweep, tmp_path):
    """Config, summary, exit code and the later rows as they were; nothing of it changes the original."""
    (directory,) = (sweep.directory / "wandb").glob("offline-run-*-0000")
    before = {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}
    whole = read_run(directory)
    for until in (-1, 7, EPOCHS):
        copy = read_run(copy_without_rows(directory, tmp_path / str(until), until=until))
        assert copy.rows == [line for line in whole.rows if line["_step"] > until]
        assert (copy.id, copy.config, copy.summary, copy.exit_code) == (
            whole.id, whole.config, whole.summary, whole.exit_code,
        )  # fmt: skip
        assert copy.files == whole.files
    (path,) = (tmp_path / "-1").glob("*/*.wandb")
    (original,) = directory.glob("*.wandb")
    assert path.read_bytes() == original.read_bytes()
    assert {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()} == before

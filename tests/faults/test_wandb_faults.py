"""W&B broken in every way during a real sweep: the science is that of a sweep without W&B, and nothing is lost.

The service is a stand-in on this machine that speaks as much of its protocol as W&B's own client needs.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from research.ledger.log import Ledger
from tests.support.services import command_line, family, start, wait_for_events, wait_until
from tests.support.verbs import SPACE, environment, research, told
from tests.support.wandb_reader import read_runs
from tests.support.wandb_server import Received, start_server

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.faults, pytest.mark.long, pytest.mark.timeout(900)]

KEY = "canary" * 6 + "abcd"
PATIENCE_S = 120  # the driver's is 30; the rest is for a machine that does ten other things


@pytest.fixture(scope="module")
def space(tmp_path_factory) -> Path:
    """A user's own space file."""
    path = tmp_path_factory.mktemp("spaces") / "my_space.py"
    path.write_text(SPACE)
    return path


def arguments(space: Path, storage: Path, wandb: str) -> list[str]:
    """A small sweep that is a function of its seed."""
    return [
        "sweep", str(space), "--trials", "3", "--name", "s", "--storage", str(storage), "--deterministic", "--seed", "3",
        "--concurrent", "2", "--min-population", "2", "--wandb", wandb, "--report-seconds", "0",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def twin(space, tmp_path_factory) -> dict[int, object]:
    """What the sweep finds with W&B off."""
    storage = tmp_path_factory.mktemp("twin")
    ran = research(*arguments(space, storage, "disabled"))
    assert ran.code == 0, ran.output
    return told(Ledger.open(storage / "s"))


@pytest.fixture
def home(tmp_path) -> dict[str, str]:
    """An environment in which nothing of the user's is read."""
    (tmp_path / "home").mkdir()
    return {"HOME": str(tmp_path / "home"), "WANDB_API_KEY": KEY}


def rest_logged_by_hand(directory: Path, home: dict[str, str]) -> None:
    """The command that the driver's last line names."""
    subprocess.run(
        [sys.executable, "-m", "research.tracking", str(directory), "--mode", "offline"],
        env=environment() | home, check=True, capture_output=True, timeout=300,
    )  # fmt: skip


def assert_all_is_there_and_is_sent_once(directory: Path, home: dict[str, str]) -> None:
    """Each row of each trial offline; ``research sync`` sends each step once, and a second time nothing."""
    server, received = start_server()
    try:
        assert_is_sent_once(directory, home, f"http://127.0.0.1:{server.server_port}", received)
        assert len(received.upserted()) == len(Ledger.open(directory).trials) + 1
    finally:
        server.shutdown()
        server.server_close()


def assert_is_sent_once(directory: Path, home: dict[str, str], url: str, received: Received) -> None:
    """After ``research sync`` the service at ``url`` has each step of each trial once; a second one sends nothing."""
    for attempt in range(2):
        calls = len(received.calls)
        done = subprocess.run(
            [sys.executable, "-m", "research.cli", "sync", str(directory)],
            env=environment() | home | {"WANDB_BASE_URL": url}, capture_output=True, text=True, timeout=400, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert attempt == 0 or len(received.calls) == calls
    ledger = Ledger.open(directory)
    for number, view in ledger.trials.items():
        run = f"s-{ledger.identity[:8]}-{number:04d}"
        assert [line["_step"] for line in received.history(run)] == sorted(view.rows)


def assert_ended_like(twin: dict[int, object], directory: Path, process: subprocess.Popen[str]) -> str:
    """The driver ends with 0, soon after its last row, with the twin's results; what it said."""
    output, _ = process.communicate(timeout=600)
    ended = time.time()
    assert process.returncode == 0, output
    assert told(Ledger.open(directory)) == twin
    last = max(path.stat().st_mtime for path in (directory / "ledger").glob("*.json"))
    # For a measurement: pytest -rP shows it.
    sys.stdout.write(f"the driver ended {ended - last:.1f} s after the last event\n")
    assert ended - last < PATIENCE_S
    return output


@contextlib.contextmanager
def broken(fault: str):
    """A W&B service with this fault: its URL, how often the fault was felt, and what it received, if anything."""
    if fault == "blackhole":
        with socket.create_server(("127.0.0.1", 0)) as silent:  # the kernel accepts, nobody answers
            yield f"http://127.0.0.1:{silent.getsockname()[1]}", None
        return
    if fault == "refused":
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))  # bound and not listening: nobody else can come to listen there
            yield f"http://127.0.0.1:{free.getsockname()[1]}", None
        return
    server, received = start_server()
    if fault == "slow":
        received.delay_s = 3.0
    elif fault.isdigit():
        received.fail["graphql"] = int(fault)
    try:
        yield f"http://127.0.0.1:{server.server_port}", received
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.fault("13 W&B service broken")
@pytest.mark.parametrize("fault", ["refused", "blackhole", "500", "401", "slow", "dies"])
def test_a_broken_service_changes_nothing(space, twin, tmp_path, home, tally, fault):
    """Online, and the service refuses, is silent, fails, is slow or goes away: told in a line, all of it there later."""
    directory = tmp_path / "s"
    with broken(fault) as (url, received):
        process = start(*arguments(space, tmp_path, "online"), **home, WANDB_BASE_URL=url)
        if fault == "dies":
            wait_until(lambda: any("file_stream" in name for name, _ in list(received.calls)), process)
            received.fail |= {"graphql": 503, "file_stream": 503, "upload": 503}
        output = assert_ended_like(twin, directory, process)
        if fault == "slow":
            tally.happened(len(received.calls) > 0)
        elif received is not None:
            # Once, however often it was asked: that differs from run to run, and the table should not.
            tally.happened(any(name.startswith("refused") for name, _ in received.calls))
        else:
            assert "can't be reached" in output
            tally.happened()
        assert KEY not in output
        rest_logged_by_hand(directory, home)
        if fault == "slow":  # it has some of the rows already
            received.delay_s = 0.0
            assert_is_sent_once(directory, home, url, received)
            return
    assert "problem: W&B: " in output
    assert_all_is_there_and_is_sent_once(directory, home)


@pytest.mark.fault("13 W&B processes killed")
def test_killed_processes_of_wandb_change_nothing(space, twin, tmp_path, home, tally):
    """SIGKILL of W&B's own server, then of our sink, in the middle of the sweep: every row is there once."""
    directory = tmp_path / "s"
    process = start(*arguments(space, tmp_path, "offline"), **home)
    for events, name in ((5, "wandb-core"), (14, "research.tracking")):
        wait_for_events(directory, events, process)
        wait_until(lambda name=name: bool(named(process.pid, name)), process)
        victim = named(process.pid, name)[0]
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda victim=victim, name=name: victim not in named(process.pid, name), process)
        tally.happened()
    assert_ended_like(twin, directory, process)
    runs = read_runs(directory)
    ledger = Ledger.open(directory)
    assert [[line["_step"] for line in run.rows] for run in runs] == [sorted(v.rows) for v in ledger.trials.values()]
    assert_all_is_there_and_is_sent_once(directory, home)


def named(pid: int, name: str) -> list[int]:
    """The processes of a family with ``name`` in their command line."""
    return [one for one in family(pid)[1:] if name in command_line(one)]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
@pytest.mark.fault("13 W&B disk full")
def test_a_full_disk_under_wandb_changes_nothing(space, twin, tmp_path, home, tally):
    """No space left where W&B writes: one line at the end; with space again, everything is logged from the ledger."""
    directory = tmp_path / "s"
    process = start(*arguments(space, tmp_path, "offline"), **home)
    wait_for_events(directory, 5, process)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 130, output
    folder = directory / "wandb"
    shutil.rmtree(folder)
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"tmpfs can't be mounted here: {mounted.stderr.strip()}")
    try:
        output = assert_ended_like(twin, directory, start("resume", directory, **home))
        with pytest.raises(OSError, match="No space left"):
            (folder / "more").write_bytes(b"x" * 100_000)
        tally.happened()
        assert "problem: W&B: " in output
        assert f"research log {directory}" in output
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
    rest_logged_by_hand(directory, home)
    assert_all_is_there_and_is_sent_once(directory, home)

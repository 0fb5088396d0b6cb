"""Ray that starts late, or never: tried again, or refused in a line, and nothing of it is left; Ctrl-C works meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from research.ledger.log import Ledger
from tests.support.places import ROOT
from tests.support.verbs import SPACE, command, environment, research

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(300)]
SLOW_RAY = Path(__file__).parent.parent / "support" / "slow_ray.py"


@pytest.fixture
def short():
    """A temporary folder with a short path: Ray puts sockets there."""
    with tempfile.TemporaryDirectory(prefix="t-") as folder:
        yield Path(folder)


def begin(tmp_path: Path, short: Path, seconds: int, tries: int, patience: str) -> subprocess.Popen[str]:
    """A sweep of one trial whose raylet comes up late in the first ``tries``."""
    space = tmp_path / "my_space.py"
    space.write_text(SPACE)
    words = ["sweep", space, "--trials", 1, "--epochs", 1, "--name", "s", "--storage", tmp_path, "--wandb", "disabled"]
    return subprocess.Popen(
        [sys.executable, SLOW_RAY, str(seconds), str(tries), *map(str, words)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=environment() | {"TMPDIR": str(short), "RAY_PATIENCE_S": patience, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def left(short: Path) -> list[str]:
    """Processes and folders of Ray in ``short``."""
    lines = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            line = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if os.fsencode(short) in line and entry.name != str(os.getpid()):
            lines.append(line.replace(b"\0", b" ").decode()[:200])
    return lines + [str(path) for path in short.glob("rr-*")]


def test_sweep_whose_ray_starts_late_tries_again_and_runs(tmp_path, short):
    """The first raylet is late; the second try brings the sweep to its end, with one line about the first."""
    process = begin(tmp_path, short, 1000, 1, "8 60 60")
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    assert output.count("trying again (2 of 3)") == 1
    assert "Traceback" not in output
    assert [view.status for view in Ledger.open(tmp_path / "s").trials.values()] == ["COMPLETE"]
    assert left(short) == []


def test_sweep_whose_ray_never_starts_ends_in_a_line_and_resumes(tmp_path, short):
    """Three tries, one line with the remedy, exit code 2; no process and no folder stay, and the sweep can be resumed."""
    process = begin(tmp_path, short, 1000, 99, "3 3 3")
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 2, output
    assert "Traceback" not in output
    assert output.count("trying again") == 2
    (line,) = [line for line in output.splitlines() if line.startswith("error: ")]
    assert "Ray did not start in 3 tries" in line
    assert "then resume: research resume " in line
    assert left(short) == []
    assert not (tmp_path / "s" / "ray").exists()
    assert Ledger.open(tmp_path / "s").trials == {}


@pytest.mark.long
@pytest.mark.timeout(1500)
def test_sweep_on_a_machine_under_load_runs_or_ends_in_a_line(tmp_path, short):
    """Twenty busy processes for each core: the sweep runs, or says in one line that Ray did not start, and resumes later."""
    space = tmp_path / "my_space.py"
    space.write_text(SPACE)
    words = ["sweep", space, "--trials", 2, "--epochs", 2, "--name", "s", "--storage", tmp_path, "--wandb", "offline"]
    cores = len(os.sched_getaffinity(0))
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(20 * cores)]
    try:
        until = time.monotonic() + 300
        while os.getloadavg()[0] < 10 * cores:
            assert time.monotonic() < until, "the machine did not get busy"
            time.sleep(1)
        began = subprocess.run(
            command(*words), capture_output=True, text=True, check=False, timeout=1000,
            env=environment() | {"TMPDIR": str(short)},
        )  # fmt: skip
    finally:
        for process in busy:
            process.kill()
            process.wait()
    output = began.stdout + began.stderr
    assert "Traceback" not in output
    assert left(short) == []
    if began.returncode != 0:
        assert began.returncode == 2, output
        (line,) = [line for line in output.splitlines() if line.startswith("error: ")]
        assert "Ray did not start in 3 tries" in line
        assert research("resume", tmp_path / "s").code == 0
    assert all(view.terminal for view in Ledger.open(tmp_path / "s").trials.values())
    assert Ledger.open(tmp_path / "s").trained == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_while_ray_starts_stops_the_sweep(tmp_path, short, number):
    """The exit code is the signal's, within seconds of it; the command that resumes is printed, and nothing is left."""
    process = begin(tmp_path, short, 1000, 99, "200 3 3")
    until = time.monotonic() + 120
    while not list(short.glob("slow-raylet-*/try0")):
        assert time.monotonic() < until
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.1)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + number, output
    assert "research resume" in output
    assert "Traceback" not in output
    assert left(short) == []

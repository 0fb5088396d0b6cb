"""Drivers in the background: started, followed by their ledger, ended by force, and what is left of them."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import subprocess
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from research.ledger.log import Ledger
from tests.support.verbs import command, deterministic, environment, research

if TYPE_CHECKING:
    from collections.abc import Callable

    from research.ledger.trial_view import TrialView

MARK = "RESEARCH_FAULTS_MARK"
_started: list[Driver] = []
# The small sweep is over within seconds of its first row: too soon for what takes a second to come about, or has to
# meet trials at work.
LASTING = ("--epochs", "120")
SEED = int(os.environ.get("RESEARCH_FAULTS_SEED", "0"))


def seeded(name: str) -> random.Random:
    """Random moments that are the same in each run; another $RESEARCH_FAULTS_SEED gives others. Said on failure."""
    print(f"moments of {name!r} from RESEARCH_FAULTS_SEED={SEED}")  # noqa: T201 - pytest shows it with a failure
    return random.Random(f"{SEED}/{name}")


@dataclass(frozen=True)
class Driver:
    """A ``research`` process that leads a session (so a process group, too) of its own."""

    process: subprocess.Popen[bytes]
    log: Path
    mark: str

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def running(self) -> bool:
        return self.process.poll() is None

    def says_how_to_go_on(self, directory: Path) -> bool:
        """Whether the command that resumes the sweep was printed; its path may be relative."""
        return re.search(rf"research resume \S*{directory.name}\b", self.output) is not None

    def wait(self, timeout: float = 500) -> int:
        """Its exit code."""
        return self.process.wait(timeout)

    def kill(self) -> None:
        """SIGKILL of the driver alone, and the proof that it was that which ended it."""
        assert self.running(), f"it ended by itself: {self.output}"
        self.process.kill()
        assert self.process.wait(60) == -signal.SIGKILL

    def others(self, part: str = "") -> dict[int, str]:
        """The command lines of what it started and is still there, by pid, where they contain ``part``.

        Found by session, and where a process has left that by the mark in its environment.
        """
        found = {}
        for folder in Path("/proc").iterdir():
            if not folder.name.isdigit() or int(folder.name) == self.pid:
                continue
            try:
                state, _, _, session, *_ = (folder / "stat").read_text().rpartition(")")[2].split()
                ours = int(session) == self.pid or self.mark.encode() in (folder / "environ").read_bytes()
                line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            except (OSError, ValueError):
                continue
            if ours and state not in "ZX" and part in line:
                found[int(folder.name)] = line
        return found

    def part_of_ray(self, name: str) -> int:
        """The pid of its own Ray's ``raylet`` or ``gcs_server``."""
        (pid,) = [pid for pid, line in self.others(name).items() if line.split()[0].endswith(f"/{name}")]
        return pid

    def left_behind(self, within: float = 90) -> dict[int, str]:
        """What is still there of what it started, after having been given time to go."""
        until = time.monotonic() + within
        while (left := self.others()) and time.monotonic() < until:
            time.sleep(0.2)
        return left


def start(tmp_path: Path, *arguments: str | Path, cwd: Path | None = None, **variables: str) -> Driver:
    """Begin ``research`` in the background, its output in a file: a pipe would be held by what it leaves behind."""
    mark = uuid.uuid4().hex
    log = tmp_path / f"{mark}.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            command(*arguments),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment() | {MARK: mark} | variables,
            cwd=cwd,
            start_new_session=True,
        )
    driver = Driver(process, log, mark)
    _started.append(driver)
    return driver


def undisturbed(space: Path, storage: Path, *more: str) -> Ledger:
    """The ledger of a deterministic sweep that nothing happens to: the twin of those that faults are committed on."""
    ran = research(*deterministic(space, storage, "twin"), *more)
    assert ran.code == 0, ran.output
    return Ledger.open(storage / "twin")


def end_all() -> None:
    """End what failed tests left running."""
    while _started:
        driver = _started.pop()
        if driver.running():
            driver.process.kill()
            driver.process.wait(60)
        for pid in driver.others():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def await_that(driver: Driver, directory: Path, what: Callable[[Ledger], bool]) -> Ledger:
    """The sweep's ledger, read again and again until ``what`` holds; fails where the driver ends before."""
    ledger: Ledger | None = None
    while True:
        ended = not driver.running()
        if ledger is None and (directory / "ledger" / "00000000.json").exists():
            ledger = Ledger.open(directory)
        if ledger is not None:
            ledger.refresh()
            if what(ledger):
                return ledger
        assert not ended, f"the driver ended before: {driver.output}"
        time.sleep(0.002)


def rows(ledger: Ledger) -> int:
    """How many rows a ledger holds."""
    return sum(len(view.rows) for view in ledger.trials.values())


def busy(ledger: Ledger) -> list[TrialView]:
    """The trials that have rows and go on."""
    return [view for view in ledger.trials.values() if view.rows and not view.terminal]


def ended(ledger: Ledger) -> int:
    """How many trials have ended."""
    return sum(view.terminal for view in ledger.trials.values())


def kill_process(pid: int) -> None:
    """SIGKILL of a process that is not our child, and the proof: a moment later there is no such process."""
    began = _began(pid)
    assert began is not None, f"no process {pid} to kill"
    os.kill(pid, signal.SIGKILL)
    until = time.monotonic() + 60
    while _began(pid) == began:
        assert time.monotonic() < until, f"process {pid} lives on"
        time.sleep(0.01)


def kill_node(raylet: int, *, first: int | None = None) -> None:
    """SIGKILL of a raylet, or of ``first`` in its place, and of the workers of that node.

    A machine that dies takes its workers along; left alone they would go on for up to half a minute.
    """
    workers = _children(raylet)
    kill_process(raylet if first is None else first)
    for pid in workers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _children(parent: int) -> list[int]:
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError, IndexError):
                if int((folder / "stat").read_text().rpartition(")")[2].split()[1]) == parent:
                    found.append(int(folder.name))
    return found


def _began(pid: int) -> str | None:
    """When the process was started (clock ticks, so that a reused number is told apart); None for a dead one."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if state in "ZX" else fields[18]

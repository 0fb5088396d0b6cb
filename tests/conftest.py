"""What every test shares: one thread, generous Hypothesis, MNIST where there is one, and `--bless`."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings

# One thread for whatever numeric library is imported later, in this process and in those that tests start:
# several processes with a thread per core each are many times slower, and bits depend on the thread count.
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

# A shell has what it starts in the background ignore Ctrl-C, and so would every process that a test starts and interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A machine under load is slow, not wrong; the same examples each time, so that a failure is the change's.
settings.register_profile("research", deadline=None, derandomize=True)
settings.load_profile("research")


def pytest_addoption(parser):
    """Let `make bless` rewrite the golden files: a test asks `request.config.getoption("bless")`."""
    parser.addoption("--bless", action="store_true", help="rewrite the golden files, compare nothing")


def pytest_make_parametrize_id(val):
    """Name a file's content by its size: compressed bytes hold the time, and all processes of a run must use the same names."""
    return f"{len(val)} bytes" if isinstance(val, bytes) else None


def pytest_runtest_setup():
    """Start every test with one thread, whatever the one before left; torch is not imported for it."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture(scope="session")
def data_dir():
    """The folder that $RESEARCH_DATA_DIR names; without one the test is skipped."""
    name = os.environ.get("RESEARCH_DATA_DIR")
    if not name:
        pytest.skip("RESEARCH_DATA_DIR is not set: it names a folder with data sets in torchvision's layout")
    if not Path(name).is_dir():
        pytest.skip(f"RESEARCH_DATA_DIR is no folder: {name}")
    return Path(name).resolve()


@pytest.fixture(scope="session")
def mnist_dir(data_dir):
    """A data directory (torchvision's ``root``) that holds MNIST; without one the test is skipped."""
    if not any((data_dir / "MNIST" / "raw").glob("train-images-idx3-ubyte*")):
        pytest.skip(f"RESEARCH_DATA_DIR holds no MNIST/raw: {data_dir}")
    return data_dir


@dataclass
class Tally:
    """What one test says of the fault that it commits: how often it happened, and what was lost by it."""

    committed: int = 0
    lost: int = 0

    def happened(self, times: int = 1) -> None:
        """Count faults that the test has seen happen: a process dead by the signal, a file with other bytes."""
        self.committed += times

    def losing(self, count: int) -> None:
        """Count what should be there and is not: trials, rows, models. Anything but 0 fails the test."""
        self.lost += count


_TALLY = pytest.StashKey[Tally]()
_FAULT = "fault"  # of a report's properties, which also cross from a process of pytest-xdist to the one that sums up


@pytest.fixture
def tally(request):
    """How a test marked ``fault(...)`` proves its fault: ``tally.happened()`` once it has seen it."""
    request.node.stash[_TALLY] = counted = Tally()
    return counted


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """Fail a fault test whose fault did not happen, or that lost something."""
    result = yield
    if item.get_closest_marker("fault") is not None:
        counted = item.stash.get(_TALLY, Tally())
        assert counted.committed > 0, "the test never saw its fault happen"
        assert counted.lost == 0, f"{counted.lost} lost"
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Give the report of a fault test its line of the table of faults."""
    report = yield
    marker = item.get_closest_marker("fault")
    if marker is not None and call.when == "call" and not report.skipped:
        counted = item.stash.get(_TALLY, Tally())
        report.user_properties.append((_FAULT, [marker.args[0], counted.committed, counted.lost]))
    return report


class FaultTable:
    """Sums up the fault tests: each fault, how often it was committed, how often it was survived, what was lost."""

    def __init__(self):
        """Begin with no line."""
        self.lines = {}

    def pytest_runtest_logreport(self, report):
        """Take the line of a report, from this process or another."""
        for name, value in report.user_properties:
            if name == _FAULT and report.when == "call":
                fault, committed, lost = value
                self.lines.setdefault(fault, []).append((committed, committed if report.passed else 0, lost))

    def pytest_terminal_summary(self, terminalreporter):
        """Print the table."""
        if not self.lines:
            return
        terminalreporter.section("faults")
        width = max(map(len, self.lines))
        terminalreporter.line(f"{'fault':{width}}  tests  committed  survived  lost")
        for name in sorted(self.lines, key=lambda name: (int(name.split()[0]), name)):
            lines = self.lines[name]
            committed, survived, lost = (sum(column) for column in zip(*lines, strict=True))
            terminalreporter.line(f"{name:{width}}  {len(lines):5}  {committed:9}  {survived:8}  {lost:4}")


def pytest_configure(config):
    """Register the table."""
    config.pluginmanager.register(FaultTable(), "fault-table")

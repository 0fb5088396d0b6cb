"""Drivers and workers killed in the middle of a real sweep, against a twin that nothing happened to."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import pytest
from verbs import command, deterministic, environment, science, told

from research.folders import verify_folder
from research.ledger import Ledger
from vae.data import load_training
from vae.serialization import from_dict
from vae.train import train

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]


def start(*arguments: str | Path) -> subprocess.Popen[str]:
    """Begin ``research`` in the background."""
    return subprocess.Popen(
        command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment()
    )


def wait_for_events(directory: Path, count: int, process: subprocess.Popen[str]) -> None:
    """Until the sweep's ledger has ``count`` events; fails if the driver ends before."""
    while not (directory / "ledger" / f"{count - 1:08d}.json").exists():
        assert process.poll() is None, f"the driver ended before event {count}: {process.stdout.read()}"
        time.sleep(0.02)


def kill(process: subprocess.Popen[str]) -> None:
    """SIGKILL, and the proof that it happened."""
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def rows_of(ledger: Ledger) -> int:
    """How many rows a ledger holds."""
    return sum(len(view.rows) for view in ledger.trials.values())


def test_a_driver_killed_twice_ends_as_its_twin_did(twin, small_space, tmp_path):
    """SIGKILL at two moments, resumed each time: the same trials, curves, decisions and best, bit for bit."""
    directory = tmp_path / "killed"
    expected = Ledger.open(twin.directory)
    process = start(*deterministic(small_space, tmp_path, "killed"))
    for events in (len(expected) // 3, 2 * len(expected) // 3):
        wait_for_events(directory, events, process)
        kill(process)
        process = start("resume", directory)
    output, _ = process.communicate(timeout=300)

    ledger = Ledger.open(directory)
    assert process.returncode == 0, output
    assert len(ledger.sessions) == 3
    assert told(ledger) == told(expected)
    assert [v.number for v in ledger.ranked()] == [v.number for v in expected.ranked()]
    for view in ledger.ranked()[:3]:
        verify_folder(directory / "models" / f"trial-{view.number:04d}")


def test_a_killed_worker_continues_to_the_same_curve(twin, small_space, tmp_path):
    """SIGKILL of a trial's process: written down as a retry, continued from its checkpoint, equal to the twin."""
    directory = tmp_path / "worker"
    expected = Ledger.open(twin.directory)
    process = start(*deterministic(small_space, tmp_path, "worker"))
    wait_for_events(directory, 8, process)
    ledger = Ledger.open(directory)
    busy = [view for view in ledger.trials.values() if view.rows and not view.terminal]
    victim = busy[0].rows[max(busy[0].rows)].worker["pid"]
    os.kill(victim, signal.SIGKILL)
    output, _ = process.communicate(timeout=300)

    ledger = Ledger.open(directory)
    assert process.returncode == 0, output
    assert any(view.attempt == 1 for view in ledger.trials.values()), "the fault happened"
    assert len(ledger.sessions) == 1
    assert told(ledger) == told(expected)


@pytest.mark.parametrize("moments", [(24,), (6, 20, 40)])
def test_the_default_mode_loses_nothing(small_space, tmp_path, moments):
    """Not deterministic, driver killed: every trial ended once, none RUNNING, each equal to its config's own run."""
    directory = tmp_path / "default"
    arguments = [a for a in deterministic(small_space, tmp_path, "default") if a != "--deterministic"]
    # Without early stopping the number of events is known: 6 trials and 54 rows, so that every kill finds work.
    process = start(*arguments, "--scheduler", "none")
    for moment in moments:
        wait_for_events(directory, moment, process)
        kill(process)
        process = start("resume", directory)
    output, _ = process.communicate(timeout=300)

    ledger = Ledger.open(directory)
    assert process.returncode == 0, output
    assert len(ledger.sessions) == 1 + len(moments)
    assert sorted(ledger.trials) == list(range(6))
    for view in ledger.trials.values():
        assert view.terminal
        assert sorted(view.rows) == list(range(1, len(view.rows) + 1)), "no epoch is missing"
        config = from_dict(view.created.config)
        alone = [
            result.row for _, result in zip(view.rows, train(config, load_training(config.data, None)), strict=False)
        ]
        for row, epoch in zip(alone, sorted(view.rows), strict=True):
            assert science(row) == science(view.rows[epoch].metrics)


def test_ctrl_c_stops_cleanly_and_says_how_to_go_on(small_space, tmp_path):
    """SIGINT once: exit code 130, the resume command printed, running trials kept; resumed, none is lost."""
    directory = tmp_path / "stopped"
    arguments = deterministic(small_space, tmp_path, "stopped")
    process = start(*arguments)
    wait_for_events(directory, 8, process)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=120)

    ledger = Ledger.open(directory)
    before = rows_of(ledger)
    assert process.returncode == 130, output
    assert f"research resume {directory}" in output
    assert ledger.interrupted is not None
    assert any(view.status == "RUNNING" for view in ledger.trials.values())

    resumed = start("resume", directory)
    output, _ = resumed.communicate(timeout=300)
    ledger.refresh()
    assert resumed.returncode == 0, output
    assert rows_of(ledger) > before
    assert all(view.terminal for view in ledger.trials.values())
    assert len(ledger.trials) == 6


def test_ctrl_c_twice_stops_now(small_space, tmp_path):
    """SIGINT again does not wait for anything: gone within seconds, exit code 130, the ledger whole."""
    directory = tmp_path / "now"
    process = start(*deterministic(small_space, tmp_path, "now"))
    wait_for_events(directory, 8, process)
    process.send_signal(signal.SIGINT)
    time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)

    assert process.returncode == 130
    assert len(Ledger.open(directory)) >= 8


def test_a_second_driver_is_refused(small_space, tmp_path):
    """Two drivers on one sweep: the second names the first and exits 2; the first goes on."""
    directory = tmp_path / "busy"
    process = start(*deterministic(small_space, tmp_path, "busy"))
    wait_for_events(directory, 3, process)
    second = start("resume", directory)
    output, _ = second.communicate(timeout=120)

    assert second.returncode == 2, output
    assert str(process.pid) in output
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=120)

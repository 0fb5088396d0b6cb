"""Disks that fill up, go away or lie, in the middle of a real sweep, against a twin that nothing happened to."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from research.ledger.log import Ledger
from research.store.folders import verify_folder
from tests.support.verbs import command, deterministic, environment, research, told

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.faults, pytest.mark.long, pytest.mark.timeout(900)]


@contextmanager
def small_disk(place: Path, size: str) -> Iterator[Path]:
    """A file system of its own with ``size`` of room, in memory; skips where none can be mounted."""
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def fill(disk: Path, leaving: int = 0) -> Path:
    """Write until nothing fits any more, then give back ``leaving`` bytes; the file to remove."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
        file.truncate(max(0, file.tell() - leaving))
    return filler


def start(*arguments: str | Path, **variables: str) -> subprocess.Popen[str]:
    """Begin ``research`` in the background."""
    return subprocess.Popen(
        command(*arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment() | variables,
    )


def wait_for_events(directory: Path, count: int, process: subprocess.Popen[str]) -> None:
    """Until the sweep's ledger has ``count`` events; fails if the driver ends before."""
    while not (directory / "ledger" / f"{count - 1:08d}.json").exists():
        assert process.poll() is None, f"the driver ended before event {count}: {process.stdout.read()}"
        time.sleep(0.02)


def last_line(output: str) -> str:
    """What the command line said as it gave up."""
    return output.strip().splitlines()[-1]


def rows_of(ledger: Ledger) -> dict[tuple[int, int], str]:
    """Each row's seal of truth: its whole event, by trial and epoch."""
    return {(n, epoch): repr(row) for n, view in ledger.trials.items() for epoch, row in view.rows.items()}


def weights(directory: Path) -> dict[str, dict[str, str]]:
    """The hashes of each kept model's files, verified."""
    kept = (directory / "models").iterdir()
    return {folder.name: {"model.safetensors": verify_folder(folder)["model.safetensors"]} for folder in kept}


def resumed(directory: Path, twin: Path, before: dict[tuple[int, int], str], tally) -> str:
    """Resume to the end; nothing that was in the ledger has changed, and all is as the twin has it."""
    done = research("resume", directory, timeout=600)
    assert done.code == 0, done.output
    ledger, expected = Ledger.open(directory), Ledger.open(twin)
    after = rows_of(ledger)
    tally.losing(sum(after.get(place) != row for place, row in before.items()))
    assert told(ledger) == told(expected)
    assert weights(directory) == weights(twin)
    return done.output


@pytest.mark.fault("9 disk full in mid sweep")
@pytest.mark.parametrize("moment", [(8, 0), (20, 16_384)])
def test_a_disk_that_fills_up_ends_the_session_and_loses_nothing(twin, small_space, tmp_path, tally, moment):
    """One line says which path has no space left; no trial fails by it; with room again, resume equals the twin."""
    events, leaving = moment
    with small_disk(tmp_path / "disk", "8m") as disk:
        process = start(*deterministic(small_space, disk, "full"))
        wait_for_events(disk / "full", events, process)
        filler = fill(disk, leaving)
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 2, output
        line = last_line(output)
        assert line.startswith(f"error: {disk / 'full'}"), output
        assert "No space left on device" in line
        assert "Traceback" not in output
        tally.happened()
        ledger = Ledger.open(disk / "full")
        assert all(view.status != "FAIL" for view in ledger.trials.values())

        refused = research("resume", disk / "full")
        assert refused.code == 2, refused.output
        assert "No space left on device" in last_line(refused.output)
        filler.unlink()
        resumed(disk / "full", twin.directory, rows_of(ledger), tally)


@pytest.mark.fault("9 disk full under Ray")
def test_ray_without_room_is_refused(small_space, tmp_path, tally):
    """A temporary directory without room for Ray is named before anything is made."""
    with tempfile.TemporaryDirectory() as short, small_disk(Path(short) / "t", "3m") as disk:
        process = start(*deterministic(small_space, tmp_path, "none"), TMPDIR=str(disk))
        output, _ = process.communicate(timeout=300)
    tally.happened()
    assert process.returncode == 2, output
    assert last_line(output).startswith(f"error: {disk} has 3.1 MB free, and Ray needs")
    assert not (tmp_path / "none").exists()


@pytest.mark.fault("9 disk full under Ray in mid sweep")
def test_rays_disk_that_fills_up_loses_nothing(twin, small_space, tmp_path, tally):
    """The temporary directory fills up in the middle: the sweep goes on, or stops in one line and can be resumed."""
    # A short path: Ray's sockets lie there, whose paths may have 107 characters.
    with tempfile.TemporaryDirectory() as short, small_disk(Path(short) / "t", "80m") as disk:
        process = start(*deterministic(small_space, tmp_path, "s"), TMPDIR=str(disk))
        wait_for_events(tmp_path / "s", 8, process)
        fill(disk)
        tally.happened()
        output, _ = process.communicate(timeout=300)
    ledger = Ledger.open(tmp_path / "s")
    assert all(view.status != "FAIL" for view in ledger.trials.values())
    if process.returncode == 0:
        assert told(ledger) == told(Ledger.open(twin.directory))
    else:
        assert last_line(output).startswith("error: "), output
        resumed(tmp_path / "s", twin.directory, rows_of(ledger), tally)


@pytest.mark.fault("10 read-only in mid sweep")
def test_a_disk_that_turns_read_only_ends_the_session_and_loses_nothing(twin, small_space, tmp_path, tally):
    """Read-only under the driver: one line that names a path; read-write again, resume equals the twin."""
    with small_disk(tmp_path / "disk", "20m") as disk:
        directory = disk / "ro"
        process = start(*deterministic(small_space, disk, "ro"))
        wait_for_events(directory, 12, process)
        # Its own file system stays as it is while the lock is open there; whoever looks a path up now finds this one.
        subprocess.run(["mount", "--bind", str(directory), str(directory)], check=True)
        subprocess.run(["mount", "-o", "remount,bind,ro", str(directory)], check=True)
        try:
            tally.happened()
            output, _ = process.communicate(timeout=300)
            assert process.returncode == 2, output
            assert last_line(output).startswith(f"error: {directory}"), output
            assert "Read-only file system" in last_line(output)
        finally:
            subprocess.run(["umount", "-l", str(directory)], check=True)
        resumed(directory, twin.directory, rows_of(Ledger.open(directory)), tally)


@pytest.mark.fault("10 directory gone in mid sweep")
@pytest.mark.parametrize("what", [".", "ledger"])
def test_a_sweep_whose_directory_goes_away_ends_in_one_line_and_goes_on_when_it_is_back(
    twin, small_space, tmp_path, tally, what
):
    """Moved away under the driver: no event is lost, nothing is begun anew in its place; put back, resume goes on."""
    directory, away = tmp_path / "gone", tmp_path / "away"
    process = start(*deterministic(small_space, tmp_path, "gone"))
    wait_for_events(directory, 12, process)
    (directory / what).rename(away)
    tally.happened()
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 2, output
    assert last_line(output).startswith(f"error: {directory}"), output
    assert "No such file or directory" in last_line(output)
    assert not (directory / "ledger").exists()
    refused = research("resume", directory)
    assert refused.code == 2
    assert "is not a sweep directory" in refused.output
    if what == ".":
        assert not directory.exists(), list(directory.rglob("*"))  # nothing comes back at the old place
        away.rename(directory)
    else:
        away.rename(directory / "ledger")
    resumed(directory, twin.directory, rows_of(Ledger.open(directory)), tally)


@pytest.mark.fault("10 directory gone in mid sweep")
def test_a_sweep_that_is_removed_while_it_runs_ends_with_code_2_and_nothing_comes_back(small_space, tmp_path, tally):
    """``rm -rf`` may race with a write: whatever was written meanwhile is no half of a sweep."""
    directory = tmp_path / "gone"
    process = start(*deterministic(small_space, tmp_path, "gone"))
    wait_for_events(directory, 12, process)
    while directory.exists():
        shutil.rmtree(directory, ignore_errors=True)
    tally.happened()
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 2, output
    assert last_line(output).startswith(f"error: {directory}"), output
    assert "was moved or removed while it ran" in last_line(output)
    assert not directory.exists(), list(directory.rglob("*"))


@pytest.mark.fault("10 trials/ and models/ removed in mid sweep")
def test_checkpoints_and_models_removed_in_mid_sweep_cost_no_row(twin, small_space, tmp_path, tally):
    """``rm -rf trials models`` under the driver: every row is as the twin's; what could not be kept is said."""
    directory = tmp_path / "s"
    process = start(*deterministic(small_space, tmp_path, "s"))
    wait_for_events(directory, 16, process)
    for name in ("trials", "models"):
        shutil.rmtree(directory / name, ignore_errors=True)
    tally.happened()
    output, _ = process.communicate(timeout=300)
    ledger = Ledger.open(directory)
    before = rows_of(ledger)
    if process.returncode != 0:
        assert last_line(output).startswith("error: "), output
        research("resume", directory, timeout=600)
        ledger = Ledger.open(directory)
    after = rows_of(ledger)
    tally.losing(sum(after.get(place) != row for place, row in before.items()))
    assert told(ledger) == told(Ledger.open(twin.directory))
    for folder in (directory / "models").glob("*"):
        verify_folder(folder)


@pytest.mark.fault("12 corrupt checkpoint")
@pytest.mark.parametrize("damage", ["flip", "half", "empty", "all of them"])
def test_a_damaged_checkpoint_is_passed_over_for_the_last_whole_one(twin, small_space, tmp_path, tally, damage):
    """The epochs since are trained again, said in the retry's reason and on the screen; rows and models are the twin's."""
    directory = tmp_path / "s"
    process = start(*deterministic(small_space, tmp_path, "s"))
    wait_for_events(directory, 12, process)
    running = []
    while not running:  # a trial may have ended just now, and the next have no row yet
        os.kill(process.pid, signal.SIGCONT)
        time.sleep(0.05)
        os.kill(process.pid, signal.SIGSTOP)
        ledger = Ledger.open(directory)
        assert len(ledger.ranked()) < 6, "it ended first"
        running = [view for view in ledger.trials.values() if not view.terminal and view.last_checkpoint is not None]
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    for view in running:
        last = directory / view.last_checkpoint.checkpoint
        states = (
            sorted(last.parent.glob("*/state.safetensors")) if damage == "all of them" else [last / "state.safetensors"]
        )
        assert states
        for state in states:
            content = state.read_bytes()
            half = len(content) // 2
            flipped = content[:half] + bytes([content[half] ^ 1]) + content[half + 1 :]
            state.write_bytes({"half": content[:half], "empty": b""}.get(damage, flipped))
            assert state.read_bytes() != content
    tally.happened()  # once, however many trials were under way: that differs from run to run
    output = resumed(directory, twin.directory, rows_of(ledger), tally)
    after = Ledger.open(directory)
    for view in running:
        reason = next(
            event["event"]["reason"]
            for event in events(directory)
            if event["event"].get("trial") == view.number and event["event"]["type"] == "retry"
        )
        assert f"the checkpoint of epoch {max(view.rows)} can't be used" in reason
        assert str(directory / view.last_checkpoint.checkpoint / "state.safetensors") in reason
        assert "trained again from" in reason
        assert f"trial {view.number}: the checkpoint of epoch {max(view.rows)} can't be used" in output
        assert after.trials[view.number].status in {"COMPLETE", "PRUNED"}


def events(directory: Path) -> list[dict]:
    """The ledger's files as JSON."""
    import json

    return [json.loads(path.read_bytes()) for path in sorted((directory / "ledger").glob("*.json"))]

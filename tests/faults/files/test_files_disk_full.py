"""No space left on the device, at each place where something is kept: the path is named, what was there is whole."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch

from research.cli import app as cli
from research.driver.best_models import keep_best
from research.errors import StorageError
from research.ledger.log import Ledger
from research.models import looks
from research.store.folders import verify_folder
from research.store.layout import trial_name
from tests.support.invented import models, whole
from tests.support.synthetic import new_ledger, row, trial
from vae.state import TrainState

FULL = "9 disk full"


@pytest.fixture
def disk(tmp_path):
    """A file system of 3 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(place)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(disk: Path, leaving: int = 0) -> Path:
    """Leave ``leaving`` bytes; the file to remove."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        with contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))
        file.truncate(file.tell() - leaving)
    return filler


def state(number: int, size: int = 100) -> TrainState:
    """A checkpoint of ``size`` numbers."""
    sizes = {"channels": 1, "height": 8, "width": 8, "levels": 16, "num_classes": 10}
    tensors = {"model/weight": torch.full((size,), float(number))}
    return TrainState(config_hash="", epoch=number, step=number, sizes=sizes, tensors=tensors)


def said(capsys, monkeypatch, *arguments: object) -> str:
    """The line with which ``research`` refuses these arguments."""
    monkeypatch.setattr(sys, "argv", ["research", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    captured = capsys.readouterr()
    assert stopped.value.code == 2
    assert captured.err.count("\n") == 1
    return captured.err


@pytest.mark.fault(FULL)
@pytest.mark.parametrize("leaving", [0, 4096])
def test_an_event_that_does_not_fit_leaves_the_ledger_as_it_was(disk, tally, leaving):
    """The event's file is named, nothing of it stays, and the next session writes it when there is room."""
    ledger = new_ledger(disk)
    ledger.append(trial(0))
    long = row(0, 1, -1.0, worker={"text": "x" * 20_000})
    before = len(ledger)
    filler = fill(disk, leaving)
    with pytest.raises(StorageError, match=r"00000003.json can't be written \(No space left on device\)"):
        ledger.append(long)
    tally.happened()
    assert len(ledger) == len(Ledger.open(disk)) == before
    assert sorted(path.name for path in (disk / "ledger").iterdir()) == [f"{n:08d}.json" for n in range(before)]
    filler.unlink()
    Ledger.open(disk).append(long)
    assert Ledger.open(disk).trials[0].rows[1] == long


@pytest.mark.fault(FULL)
def test_a_checkpoint_that_does_not_fit_leaves_the_one_before(disk, tally):
    """The file is named; the earlier checkpoint loads, and no folder claims to be the new one."""
    first = disk / "trials" / "epoch-0001-0"
    state(1).save(first)
    filler = fill(disk, 8192)
    with pytest.raises(OSError, match=r"No space left on device: '.*state.safetensors'"):
        state(2, size=10_000).save(disk / "trials" / "epoch-0002-0")
    tally.happened()
    assert TrainState.load(first).epoch == 1
    assert not (disk / "trials" / "epoch-0002-0").exists()
    filler.unlink()
    state(2, size=10_000).save(disk / "trials" / "epoch-0002-0")
    assert TrainState.load(disk / "trials" / "epoch-0002-0").epoch == 2


@pytest.mark.fault(FULL)
def test_a_model_that_does_not_fit_leaves_the_one_that_is_kept(disk, tally):
    """``keep_best`` names the file, keeps the old model and the new one's checkpoint, and makes up for it later."""
    ledger = new_ledger(disk, keep=1)
    for number, elbo in enumerate([-30.0, -20.0]):
        ledger.append(trial(number))
        place = f"trials/{trial_name(number)}/epoch-0001-0"
        sha256 = state(1, size=20_000).save(disk / place)
        ledger.append(row(number, 1, elbo, "complete", checkpoint=place, checkpoint_sha256=sha256))
        if number == 0:
            assert keep_best(ledger, disk) == []
            kept = verify_folder(disk / "models" / "trial-0000")
    filler = fill(disk, 16_384)
    (problem,) = keep_best(ledger, disk)
    tally.happened()
    assert "the model of trial 1 could not be kept" in problem
    assert "No space left on device" in problem
    assert str(disk / "models") in problem
    assert verify_folder(disk / "models" / "trial-0000") == kept
    filler.unlink()
    assert keep_best(ledger, disk) == []
    assert [path.name for path in (disk / "models").iterdir()] == ["trial-0001"]


@pytest.mark.fault(FULL)
@pytest.mark.parametrize("arguments", [(), ("--csv", "t"), ("--csv", "t.csv"), ("--parquet", "t"), ("--out", "o.html")])
def test_a_report_that_does_not_fit_names_its_file(disk, capsys, monkeypatch, tally, arguments):
    """One line, exit code 2, an earlier page as it was, nothing half written."""
    ledger = whole(disk / "sweep")
    models(ledger, "samples.png")
    asked = [disk / argument if not argument.startswith("--") else argument for argument in arguments]
    page = disk / "sweep" / "report.html"
    page.write_text("earlier")
    fill(disk)
    line = said(capsys, monkeypatch, "report", disk / "sweep", *asked)
    tally.happened()
    assert line.startswith(f"error: {disk}")
    assert "No space left on device" in line
    assert page.read_text() == "earlier"
    assert not list(disk.rglob("*.tmp"))


@pytest.mark.fault(FULL)
def test_a_look_at_test_that_can_not_be_written_down_is_not_taken(disk, tally):
    """The refusal names the folder of looks."""
    fill(disk)
    with pytest.raises(StorageError, match=r"looks can't be written \(No space left on device\)"):
        looks.write_look(disk, {"measure": "m"}, {}, "why")
    tally.happened()
    assert looks.count_looks(disk) == 0


@pytest.mark.fault(FULL)
def test_a_sweep_is_not_begun_where_its_models_would_not_fit(disk, capsys, monkeypatch, tally):
    """What is needed, what is free and where, before anything is made; so for a single run."""
    fill(disk, 200_000)
    tally.happened()
    line = said(capsys, monkeypatch, "sweep", "quickstart", "--storage", disk, "--name", "s", "--keep", 500)
    assert f"{disk} has 0.2 MB free, and " in line
    assert not (disk / "s").exists()
    fill(disk)
    line = said(capsys, monkeypatch, "train", "quickstart", "--out", disk / "m" / "x")
    assert line.startswith(f"error: {disk / 'm' / 'x'} can't be written (No space left on device)")


@pytest.mark.fault(FULL)
def test_a_ray_without_room_is_refused(disk, capsys, monkeypatch, tally, tmp_path):
    """The temporary directory is named, and the remedy."""
    short = Path(tempfile.mkdtemp())
    (short / "d").symlink_to(disk)
    monkeypatch.setattr("tempfile.tempdir", str(short / "d"))
    tally.happened()
    line = said(capsys, monkeypatch, "sweep", "quickstart", "--storage", tmp_path / "s")
    assert f"{short / 'd'} has 3.1 MB free, and Ray needs" in line
    assert "TMPDIR" in line
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / ("long" * 20)))
    line = said(capsys, monkeypatch, "sweep", "quickstart", "--storage", tmp_path / "s")
    assert "too long a path for Ray's sockets" in line
    assert not (tmp_path / "s").exists()

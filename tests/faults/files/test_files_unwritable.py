"""A place that can't be written, or is gone: named in one line, nothing lost, by a person who is not root."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from research.cli import app as cli
from research.driver.best_models import keep_best
from research.errors import StorageError, UserError
from research.ledger.log import Ledger
from tests.support.invented import drawn
from tests.support.places import ROOT
from tests.support.synthetic import new_ledger, row

if TYPE_CHECKING:
    from pathlib import Path

UNWRITABLE = "10 unwritable directory"
AS_NOBODY = """
import os, sys
from pathlib import Path
import torch
import research.cli.app, research.planning.preflight, research.driver.session, research.driver.lifecycle, research.experiments.single, research.views.report.page, research.views.report.export
from research.errors import UserError
from research.ledger.log import Ledger
from tests.support.synthetic import row
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
place = Path(sys.argv[1])
for verb in (
    lambda: research.planning.preflight.check_place(place, "new"),
    lambda: Ledger.open(place / "sweep").append(row(0, 2, -1.0)),
    lambda: research.driver.lifecycle.create(place / "other", Ledger.open(place / "sweep").settings, []),
    lambda: research.driver.session.SweepLock(place / "sweep").__enter__(),
    lambda: research.views.report.export.write_text("x", place / "page.html"),
):
    try:
        verb()
        print("written")
    except UserError as error:
        print(error)
print(len(Ledger.open(place / "sweep")))
"""


@pytest.fixture
def sweep(tmp_path):
    """A sweep with a running trial."""
    ledger = new_ledger(tmp_path / "place" / "sweep")
    ledger.append(drawn(0))
    ledger.append(row(0, 1, -2.0))
    return ledger


def as_nobody(place: Path) -> list[str]:
    """What a person without rights there is told by each way of writing."""
    done = subprocess.run(
        [sys.executable, "-c", AS_NOBODY, str(place)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()


@pytest.mark.faults
@pytest.mark.fault(UNWRITABLE)
@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody without rights")
def test_a_directory_without_the_right_to_write_is_named(sweep, tmp_path, tally):
    """Mode 500, of another person: each verb's line has the path and 'Permission denied'; the sweep can be read."""
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == 0 and str(folder).startswith("/tmp/"):
            folder.chmod(0o755)
    for folder in (sweep.directory.parent, sweep.directory, sweep.directory / "ledger"):
        folder.chmod(0o555)
    *told, count = as_nobody(sweep.directory.parent)
    tally.happened(len(told))
    assert count == "4"
    assert len(told) == 5
    for line in told:
        assert str(sweep.directory.parent) in line
        assert "Permission denied" in line
    assert len(Ledger.open(sweep.directory)) == 4


@pytest.mark.fault("10 read-only mount")
def test_a_read_only_mount_is_named(sweep, tmp_path, tally, capsys, monkeypatch):
    """A read-only bind mount: nothing is begun or continued there, everything can be read."""
    here = tmp_path / "mounted"
    here.mkdir()
    mounted = subprocess.run(
        ["mount", "--bind", str(sweep.directory.parent), str(here)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"nothing can be mounted here: {mounted.stderr.decode().strip()}")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(here)], check=True)
        ledger = Ledger.open(here / "sweep")
        with pytest.raises(StorageError, match=r"can't be written \(Read-only file system\)"):
            ledger.append(row(0, 2, -1.0))
        tally.happened()
        monkeypatch.setattr(sys, "argv", ["research", "sweep", "quickstart", "--storage", str(here), "--name", "x"])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        assert stopped.value.code == 2
        assert "Read-only file system" in capsys.readouterr().err
        for arguments in (("show", here / "sweep"), ("report", here / "sweep", "--out", tmp_path / "page.html")):
            monkeypatch.setattr(sys, "argv", ["research", *map(str, arguments)])
            with pytest.raises(SystemExit) as stopped:
                cli.main()
            assert stopped.value.code == 0
        monkeypatch.setattr(sys, "argv", ["research", "report", str(here / "sweep")])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        assert stopped.value.code == 2
        assert "report.html can't be written (Read-only file system)" in capsys.readouterr().err
    finally:
        subprocess.run(["umount", "-l", str(here)], check=True)
    assert len(Ledger.open(sweep.directory)) == 4


@pytest.mark.fault("10 directory gone")
def test_a_ledger_that_is_gone_takes_no_event_and_is_not_begun_anew(sweep, tmp_path, tally):
    """Moved away under its writer: the event's file is named; back again, the next session goes on."""
    away = tmp_path / "away"
    shutil.move(sweep.directory / "ledger", away)
    tally.happened()
    for _ in range(2):
        with pytest.raises(StorageError, match=r"00000000.json can't be read any more \(No such file or directory\)"):
            sweep.append(row(0, 2, -1.0))
    assert not (sweep.directory / "ledger").exists()
    with pytest.raises(UserError, match="is not a sweep directory"):
        Ledger.open(sweep.directory)
    shutil.move(away, sweep.directory / "ledger")
    Ledger.open(sweep.directory).append(row(0, 2, -1.0))
    assert len(Ledger.open(sweep.directory)) == 5


@pytest.mark.fault("10 directory gone")
def test_trials_and_models_that_are_gone_cost_a_line(sweep, tally):
    """The model is reported as not kept; the rows are what they were."""
    sweep.append(row(0, 2, -1.0, "complete", checkpoint="trials/trial-0000/epoch-0002-0", checkpoint_sha256="0"))
    shutil.rmtree(sweep.directory / "trials", ignore_errors=True)
    tally.happened()
    (problem,) = keep_best(sweep, sweep.directory)
    assert "the model of trial 0 could not be kept" in problem
    assert "No such file or directory" in problem
    assert len(Ledger.open(sweep.directory)) == 5

"""The W&B sink: W&B holds what the ledger says, and whatever happens there costs the sweep nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from research.errors import UserError
from research.ledger.log import Ledger
from research.planning.tracking_mode import default_mode
from tests.support.places import ROOT
from tests.support.synthetic import failed, new_ledger, row, trial
from tests.support.wandb_help import alive, append_trial, child_of, cores_of, wait_for
from tests.support.wandb_reader import OfflineRun, read_runs

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from research.tracking.sink import Sink

    Start = Callable[..., Sink]

pytestmark = pytest.mark.usefixtures("home")
AWKWARD = [-106.34876543210987, 1 / 3, 5e-324, 1.7976931348623157e308, -1e-7, 123456789012345680.0, 2.0]


def assert_is_the_ledger(runs: list[OfflineRun], ledger: Ledger) -> None:
    """One run per trial; every scalar of every row, each step once and in order, as the ledger has it."""
    assert [run.config["trial"] for run in runs] == sorted(ledger.trials)
    assert len({run.id for run in runs}) == len(runs)
    for run in runs:
        view = ledger.trials[run.config["trial"]]
        assert [logged["_step"] for logged in run.rows] == sorted(view.rows)
        for logged in run.rows:
            metrics = view.rows[logged["_step"]].metrics
            scalars = {name: value for name, value in metrics.items() if isinstance(value, int | float)}
            ours = {name: logged[name] for name in logged if name in metrics}
            assert ours == scalars
        assert run.summary["status"] == view.status
        assert run.exit_code == (1 if view.status in {"FAIL", "RUNNING"} else 0)
        config = {name: run.config[name] for name in view.created.config}
        assert config == view.created.config


def test_every_trial_is_a_run_equal_to_the_ledger(tmp_path: Path, start: Start, home: Path) -> None:
    """Complete, pruned, failed, running: config, group, rows to the last digit, pictures, summary."""
    sweep = tmp_path / "sweep"
    ledger = new_ledger(sweep)
    sink = start(sweep)
    (sweep / "pictures").mkdir()
    Image.new("L", (20, 20)).save(sweep / "pictures" / "a.png")
    ledger.append(trial(0))
    for epoch, value in enumerate(AWKWARD):
        more = {"val/elbo": value, "val/kl": None, "train/steps": 2**53 + 1}
        metrics = {**row(0, epoch, -1.0).metrics, **more}
        pictures = {2: {"samples": "pictures/a.png"}, 3: {"samples": "pictures/none.png"}}.get(epoch, {})
        decision = "complete" if epoch == len(AWKWARD) - 1 else "continue"
        ledger.append(row(0, epoch, None, decision, metrics=metrics, pictures=pictures))
    append_trial(ledger, 1, 2, "pruned", reason="rung 2: 5th of 9")
    append_trial(ledger, 2, 1, "continue")
    ledger.append(failed(2))
    ledger.append(trial(3))
    ledger.append(failed(3, "config", "beta: -1 is not positive"))
    append_trial(ledger, 4, 2, "continue")
    wait_for(lambda: any((sweep / "wandb").glob("offline-run-*")))
    os.kill(child_of(sink), signal.SIGINT)  # it is not the one that is asked to stop
    problems = sink.close()
    assert problems == [f"W&B: {sweep / 'pictures' / 'none.png'} is missing: not logged"]
    runs = read_runs(sweep)
    assert_is_the_ledger(runs, ledger)
    first, pruned, bad, empty, running = runs
    assert [value["val/elbo"] for value in first.rows] == AWKWARD
    assert first.rows[0]["train/steps"] == 2**53 + 1
    assert first.rows[0]["val/kl_per_dimension._type"] == "histogram"
    assert (first.group, first.name, first.job_type) == ("quick", "quick/trial-0", "trial")
    assert (first.project, first.tags) == ("vae-research", ["quickstart", "vae", "digits", "tpe", "asha", "complete"])
    assert first.config["params/lr"] == ledger.trials[0].created.params["lr"]
    assert first.config["optimizer"] | {"kind": "adam", "lr": 1e-3 / 3} == first.config["optimizer"]
    assert [value.get("samples.caption") for value in first.rows] == [
        *[None, None, "epoch 2: E[x|z] of draws from the prior"],
        *[None] * 4,
    ]
    assert len(first.files) == 1
    assert (first.summary["best/val/elbo"], first.summary["best_epoch"]) == (AWKWARD[3], 3)
    assert (pruned.summary["reason"], pruned.summary["fail_kind"]) == ("rung 2: 5th of 9", None)
    assert (bad.summary["reason"], bad.summary["fail_kind"]) == ("IndexError: list index out of range", "bug")
    assert (empty.rows, empty.summary["best_epoch"], empty.summary["fail_kind"]) == ([], None, "config")
    assert running.summary["status"] == "RUNNING"
    marks = sorted(path.name for path in (sweep / "wandb" / "finished").iterdir())
    assert marks == ["sweep.json", *(f"trial-{number:04d}.json" for number in range(4))]
    assert list(home.iterdir()) == []


def test_disabled_starts_nothing(tmp_path: Path, start: Start) -> None:
    """Without W&B there is no process and no folder."""
    new_ledger(tmp_path / "sweep")
    sink = start(tmp_path / "sweep", "disabled")
    assert sink._process is None
    assert sink.close() == []
    assert not (tmp_path / "sweep" / "wandb").exists()


@pytest.mark.parametrize("fault", ["import", "folder", "python"])
def test_a_sink_that_can_not_work_is_one_line(
    tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """A broken wandb, an unwritable folder, an interpreter that is gone: told at the end, with the remedy."""
    sweep = tmp_path / "sweep"
    ledger = new_ledger(sweep)
    if fault == "import":
        (tmp_path / "stub" / "wandb").mkdir(parents=True)
        (tmp_path / "stub" / "wandb" / "__init__.py").write_text("raise ImportError('no protobuf')\n")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path / "stub"))
    elif fault == "folder":
        (sweep / "wandb").write_text("a file in its place")
    else:
        monkeypatch.setattr(sys, "executable", str(tmp_path / "gone"))
    sink = start(sweep)
    append_trial(ledger, 0, 2)
    (problem,) = sink.close(20.0)
    expected = {"import": "no protobuf", "folder": "File exists", "python": "could not be started"}
    assert expected[fault] in problem
    assert f"research log {sweep}" in problem
    assert "\n" not in problem
    assert sink.close() == []


def test_the_deadline_holds(tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """A W&B that hangs is killed when the time is up, and the line says how to log the rest."""
    sweep = tmp_path / "sweep"
    new_ledger(sweep)
    (tmp_path / "stub" / "wandb").mkdir(parents=True)
    (tmp_path / "stub" / "wandb" / "__init__.py").write_text("import time; time.sleep(600)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "stub"))
    sink = start(sweep)
    pid = child_of(sink)
    begin = time.monotonic()
    (problem,) = sink.close(1.0)
    assert time.monotonic() - begin < 60  # it would hang for 600
    assert "was not done in time; log the rest with: research log" in problem
    assert not alive(pid)


@pytest.mark.parametrize(
    ("environment", "netrc", "mode"),
    [
        ({}, None, "offline"),
        ({"WANDB_API_KEY": "k"}, None, "online"),
        ({}, "machine api.wandb.ai login user password k", "online"),
        ({}, "machine other.example login user password k", "offline"),
        ({}, "default login user password k", "offline"),
        ({}, "machine {{ nonsense", "offline"),
        ({"WANDB_BASE_URL": "https://w.example:8080"}, "machine w.example login user password k", "online"),
        ({"WANDB_BASE_URL": "https://w.example"}, "machine api.wandb.ai login u password k", "offline"),
        ({"WANDB_API_KEY": "k", "WANDB_MODE": "offline"}, None, "offline"),
        ({"WANDB_MODE": "disabled"}, None, "disabled"),
        ({"WANDB_API_KEY": "k", "WANDB_MODE": "dryrun"}, None, "offline"),
        ({"WANDB_API_KEY": "k", "WANDB_MODE": "DryRun"}, None, "offline"),
        ({"WANDB_API_KEY": "k", "WANDB_MODE": "OFFLINE "}, None, "offline"),
        ({"WANDB_MODE": "Run"}, None, "online"),
        ({"WANDB_MODE": "ONLINE"}, None, "online"),
        ({"WANDB_API_KEY": "k", "WANDB_MODE": ""}, None, "online"),
        ({"WANDB_API_KEY": "k", "WANDB_DISABLED": "true"}, None, "disabled"),
        ({"WANDB_MODE": "online", "WANDB_DISABLED": "True"}, None, "disabled"),
        ({"WANDB_DISABLED": "1"}, None, "disabled"),
        ({"WANDB_API_KEY": "k", "WANDB_DISABLED": "False"}, None, "online"),
    ],
)
def test_online_is_for_who_is_logged_in(
    home: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], netrc: str | None, mode: str
) -> None:
    """A key in the environment or in netrc for W&B's host means online; WANDB_MODE has the last word."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    if netrc is not None:
        (home / ".netrc").write_text(netrc)
        (home / ".netrc").chmod(0o600)
    assert default_mode() == mode


@pytest.mark.parametrize(
    ("name", "value"), [("WANDB_MODE", "ofline"), ("WANDB_MODE", "shared"), ("WANDB_DISABLED", "maybe")]
)
def test_default_mode_value_not_understood_is_refused(
    home: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """A spelling mistake must not send a sweep to a server."""
    assert home.is_dir()
    monkeypatch.setenv("WANDB_API_KEY", "k")
    monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=f"{name} must be .*got '{value}'"):
        default_mode()


def test_the_driver_does_not_import_wandb() -> None:
    """Importing the sink and asking for the mode costs no import of wandb."""
    code = (
        "import sys, research.tracking.sink; from research.planning.tracking_mode import default_mode; default_mode()\n"
        "print('wandb' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout == "False\n"


@pytest.mark.faults
def test_a_killed_sink_loses_nothing_and_doubles_nothing(tmp_path: Path, start: Start) -> None:
    """SIGKILL in the middle, then close: each row once, one directory per run; a later session adds none."""
    sweep = tmp_path / "sweep"
    ledger = new_ledger(sweep)
    sink = start(sweep)
    append_trial(ledger, 0, 3)
    append_trial(ledger, 1, 40, "continue")
    mark = sweep / "wandb" / "finished" / "trial-0000.json"
    wait_for(mark.exists)
    wait_for(lambda: len(list((sweep / "wandb").glob("offline-run-*"))) == 2)
    os.killpg(child_of(sink), signal.SIGKILL)
    killed = child_of(sink)
    wait_for(lambda: not alive(killed))
    for epoch in range(40, 80):
        ledger.append(row(1, epoch, -1.0 / epoch, "complete" if epoch == 79 else "continue"))
    assert sink.close() == []
    assert_is_the_ledger(read_runs(sweep), ledger)

    def written() -> dict[str, int]:
        files = (sweep / "wandb").glob("offline-run-*-000?/*.wandb")
        return {str(path): path.stat().st_mtime_ns for path in files}

    before = written()
    again = start(sweep)
    append_trial(ledger, 2, 1)
    assert again.close() == []
    assert written().items() >= before.items()
    assert_is_the_ledger(read_runs(sweep), ledger)


@pytest.mark.faults
def test_a_dead_wandb_core_costs_nothing(tmp_path: Path, start: Start) -> None:
    """When W&B's own server is killed, the sink starts another and logs unfinished runs anew."""
    sweep = tmp_path / "sweep"
    ledger = new_ledger(sweep)
    sink = start(sweep)
    append_trial(ledger, 0, 5, "continue")
    wait_for(lambda: len(list((sweep / "wandb").glob("offline-run-*"))) == 1)
    # The directory may be there before the server is, and a child that has just been forked is still called python.
    wait_for(lambda: cores_of(sink) != [])
    (core,) = cores_of(sink)
    os.kill(core, signal.SIGKILL)
    for epoch in range(5, 10):
        ledger.append(row(0, epoch, -1.0, "complete" if epoch == 9 else "continue"))
    append_trial(ledger, 1, 2)
    assert sink.close(60.0) == []
    assert "Traceback" in (sweep / "wandb" / "sink.log").read_text()  # the fault was felt
    assert_is_the_ledger(read_runs(sweep), ledger)


DRIVER = """
import sys, time
from pathlib import Path
from tests.support.synthetic import new_ledger, row, trial
from research.tracking.sink import Sink
ledger = new_ledger(Path(sys.argv[1]))
sink = Sink.start(Path(sys.argv[1]), "offline")
ledger.append(trial(0))
ledger.append(row(0, 0, -1.0, "complete"))
ledger.append(trial(1))
ledger.append(row(1, 0, -2.0))
print(sink._process.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.faults
def test_the_sink_ends_with_its_driver_and_the_next_one_goes_on(tmp_path: Path, start: Start) -> None:
    """After SIGKILL of the driver the sink ends by itself; a resumed sweep logs the running trial anew."""
    sweep = tmp_path / "sweep"
    command = [sys.executable, "-c", DRIVER, str(sweep)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout is not None
        sink_pid = int(driver.stdout.readline())
        assert alive(sink_pid)
        os.kill(driver.pid, signal.SIGKILL)
        assert driver.wait(10) == -signal.SIGKILL
    ledger = Ledger.open(sweep)
    sink = start(sweep)  # while the old one is at work
    ledger.append(row(1, 1, -1.5, "complete"))
    assert sink.close(60.0) == []
    wait_for(lambda: not alive(sink_pid), 30)
    assert_is_the_ledger(read_runs(sweep), ledger)
    assert len(list((sweep / "wandb" / "finished").glob("trial-*"))) == 2


@pytest.mark.slow
def test_what_was_not_logged_is_logged_by_hand(tmp_path: Path) -> None:
    """The command of the problem line logs a sweep from its ledger alone, and again does nothing."""
    sweep = tmp_path / "sweep"
    ledger = new_ledger(sweep, wandb="disabled")
    append_trial(ledger, 0, 2)
    for _ in range(2):
        result = subprocess.run(
            [sys.executable, "-m", "research.cli", "log", str(sweep)],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=True,
        )
        assert result.stdout == f"W&B: every ended trial of {sweep} is logged in {sweep / 'wandb'}\n"
        assert_is_the_ledger(read_runs(sweep), ledger)


@pytest.mark.slow
def test_online_without_a_server_becomes_offline(
    tmp_path: Path, start: Start, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that is not there costs a line, not a row; the key is written nowhere."""
    key = "canary" * 6 + "abcd"
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("WANDB_API_KEY", key)
    sweep = tmp_path / "sweep"
    ledger = new_ledger(sweep)
    sink = start(sweep, "online")
    append_trial(ledger, 0, 2)
    wait_for(lambda: any((sweep / "wandb").glob("offline-run-*")))  # while the sweep still runs
    append_trial(ledger, 1, 3, "pruned")
    (problem,) = sink.close(60.0)
    assert "online failed" in problem
    assert "logged offline instead" in problem
    assert_is_the_ledger(read_runs(sweep), ledger)
    assert not list((sweep / "wandb").glob("run-*"))
    modes = [json.loads(path.read_text())["mode"] for path in (sweep / "wandb" / "finished").iterdir()]
    assert modes == ["offline"] * 3
    for path in [*sweep.rglob("*"), *home.rglob("*")]:
        assert not path.is_file() or b"canary" not in path.read_bytes()


def shadows(folder: Path) -> None:
    """Files and folders of our packages' names, as a researcher's working directory may have; importing one fails."""
    (folder / "research").mkdir(parents=True)
    for name in ("vae.py", "search_spaces.py", "research/__init__.py"):
        (folder / name).write_text("raise RuntimeError('the working directory was imported')\n")


@pytest.mark.slow
@pytest.mark.parametrize("how", ["installed", "PYTHONPATH", "relative PYTHONPATH"])
def test_the_sink_imports_nothing_of_the_working_directory(
    tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """A vae.py or a folder research/ there is not imported, however the project was found."""
    shadows(tmp_path / "work")
    sweep = tmp_path / "sweep"
    ledger = new_ledger(sweep)
    append_trial(ledger, 0, 1)
    monkeypatch.chdir(tmp_path / "work")
    if how != "installed":
        monkeypatch.setenv("PYTHONPATH", str(ROOT) if how == "PYTHONPATH" else os.pathsep.join([".", ""]))
    assert start(sweep).close(60) == []
    assert_is_the_ledger(read_runs(sweep), ledger)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["ends", "killed", "killed with its driver's word"])
def test_a_sink_leaves_no_temporary_folders(
    tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """W&B's own are in one of the sink's, which goes with it."""
    place = tmp_path / "t"
    place.mkdir()
    monkeypatch.setenv("TMPDIR", str(place))
    monkeypatch.setattr(tempfile, "tempdir", None)
    sweep = tmp_path / "sweep"
    ledger = new_ledger(sweep)
    append_trial(ledger, 0, 2)
    sink = start(sweep)
    wait_for(lambda: bool(list(place.glob("rw-*/*wandb-media"))))
    assert not list(place.glob("tmp*wandb-*"))
    if how == "killed":
        os.kill(child_of(sink), signal.SIGKILL)
        wait_for(lambda: not alive(child_of(sink)))
    sink.close(0.0 if "word" in how else 60)
    assert [path.name for path in place.iterdir()] == []

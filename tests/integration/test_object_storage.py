"""Sweeps that live in an object store, killed, cut off and gone on with from other machines, against a local twin."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from research.cli.app import app
from research.ledger.log import Ledger
from research.store.folders import verify_folder
from research.store.mirror import local
from research.store.object_store import ObjectStore, _filesystem
from tests.support.places import ROOT
from tests.support.store_server import BUCKET
from tests.support.verbs import SPACE, command, deterministic, environment, told

pytestmark = [pytest.mark.faults, pytest.mark.long, pytest.mark.timeout(2400)]
SWEEPS = f"s3://{BUCKET}/sweeps"
TIMEOUT = 900  # seconds: a machine under load takes minutes to start Ray


class Machine:
    """A machine that shares nothing with others but the store: its own cache, its own working directory."""

    def __init__(self, root: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root / name
        self.root.mkdir()
        self.cache = self.root / "cache"
        self._patch = monkeypatch

    def start(self, *arguments: str | Path, **variables: str) -> subprocess.Popen[str]:
        """Begin ``research`` there."""
        environ = environment() | {"RESEARCH_CACHE_DIR": str(self.cache)} | variables
        environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), environ.get("PYTHONPATH", "")])
        return subprocess.Popen(
            command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environ, cwd=self.root
        )

    def mirror(self, name: str) -> Path:
        """Where this machine's mirror of a sweep is."""
        return self.cache / "sweeps" / "s3" / BUCKET / "sweeps" / name

    def pulled(self, name: str) -> Path:
        """The same after it was brought up to the store, in this process."""
        self._patch.setenv("RESEARCH_CACHE_DIR", str(self.cache))
        return local(f"{SWEEPS}/{name}")


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Makes machines."""
    return lambda name: Machine(tmp_path, name, monkeypatch)


def until(directory: Path, count: int, process: subprocess.Popen[str]) -> None:
    """Wait for the mirror's event ``count``."""
    while not (directory / "ledger" / f"{count - 1:08d}.json").exists():
        assert process.poll() is None, f"the driver ended before event {count}: {process.stdout.read()}"
        time.sleep(0.02)


def sweep_of(space: Path, name: str) -> list[str]:
    """The twin's arguments, in the store."""
    arguments = deterministic(space, Path("storage"), name)
    arguments[arguments.index("--storage") + 1] = SWEEPS
    return arguments


def missing(ledger: Ledger, expected: Ledger) -> int:
    """How many of the twin's rows are not there."""
    return sum(len(set(view.rows) - set(ledger.trials[n].rows)) for n, view in expected.trials.items())


@pytest.mark.fault("2 driver killed")
@pytest.mark.parametrize("part", [0.4, 0.8])
def test_a_sweep_killed_on_one_machine_is_finished_by_another(twin, gate, machine, tally, part):
    """SIGKILL of the driver, resumed from a machine that has nothing, not even the space: equal to the local twin."""
    expected = Ledger.open(twin.directory)
    first, second, third, name = machine("first"), machine("second"), machine("third"), f"killed-{part}"
    space = first.root / "my_space.py"
    space.write_text(SPACE)
    process = first.start(*sweep_of(space, name))
    until(first.mirror(name), int(part * len(expected)), process)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    tally.happened()
    space.unlink()
    process = second.start("resume", f"{SWEEPS}/{name}")
    output, _ = process.communicate(timeout=TIMEOUT)

    assert process.returncode == 0, output
    assert f"research show {SWEEPS}/{name}" in output
    directory = third.pulled(name)
    ledger = Ledger.open(directory)
    tally.losing(missing(ledger, expected))
    assert len(ledger.sessions) == 2
    assert told(ledger) == told(expected)
    assert [v.number for v in ledger.ranked()] == [v.number for v in expected.ranked()]
    kept = sorted(path.name for path in (directory / "models").iterdir())
    assert kept == sorted(path.name for path in (twin.directory / "models").iterdir())
    for model in kept:
        ours, theirs = verify_folder(directory / "models" / model), verify_folder(twin.directory / "models" / model)
        assert ours["model.safetensors"] == theirs["model.safetensors"]
    assert ObjectStore(f"{SWEEPS}/{name}").names("trials") == [], "checkpoints of ended trials are gone"

    for verb, option in (("show", "--json"), ("watch", "--once"), ("report", "--json")):
        read = CliRunner().invoke(app, [verb, f"{SWEEPS}/{name}", option])
        assert read.exit_code == 0, read.output
    looked = CliRunner().invoke(app, ["evaluate", f"{SWEEPS}/{name}/models/{kept[0]}", "--split", "test", "--json"])
    assert looked.exit_code == 0, looked.output
    assert len(ObjectStore(f"{SWEEPS}/{name}").names("looks")) == 1, "a look at test is written down in the store"


@pytest.mark.fault("1 worker killed")
def test_a_killed_worker_continues_from_the_store(twin, gate, machine, small_space, tally):
    """SIGKILL of a trial's process: another, whose scratch is empty, fetches the checkpoint; equal to the twin."""
    expected = Ledger.open(twin.directory)
    here = machine("here")
    process = here.start(*sweep_of(small_space, "worker"))
    until(here.mirror("worker"), 8, process)
    ledger = Ledger.open(here.mirror("worker"))
    busy = [view for view in ledger.trials.values() if view.rows and not view.terminal]
    os.kill(busy[0].rows[max(busy[0].rows)].worker["pid"], signal.SIGKILL)
    output, _ = process.communicate(timeout=TIMEOUT)

    assert process.returncode == 0, output
    ledger = Ledger.open(here.pulled("worker"))
    assert any(view.attempt == 1 for view in ledger.trials.values())
    tally.happened()
    tally.losing(missing(ledger, expected))
    assert told(ledger) == told(expected)


@pytest.mark.fault("10 storage unwritable or gone")
@pytest.mark.parametrize("mode", [403, 500, "closed"])
def test_a_store_that_refuses_ends_the_session_with_one_line(twin, gate, machine, tally, mode):
    """403, 500 or no answer: exit 2, one line with place and remedy, nothing lost; resumed, equal to the twin."""
    expected = Ledger.open(twin.directory)
    here, there, name = machine("here"), machine("there"), f"refused-{mode}"
    space = here.root / "my_space.py"
    space.write_text(SPACE)
    process = here.start(*sweep_of(space, name), AWS_MAX_ATTEMPTS="3")
    until(here.mirror(name), 9, process)
    gate.mode = mode
    output, _ = process.communicate(timeout=TIMEOUT)
    gate.mode = "open"

    assert process.returncode == 2, output
    assert gate.turned_away > 0
    tally.happened()
    lines = [line for line in output.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, output
    assert f"{SWEEPS}/{name}" in lines[0]
    assert "Traceback" not in output
    assert f"research resume {SWEEPS}/{name}" in lines[0]
    before = Ledger.open(there.pulled(name))
    assert not any(view.status == "FAIL" for view in before.trials.values()), "no trial pays for it"

    process = there.start("resume", f"{SWEEPS}/{name}")
    output, _ = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0, output
    ledger = Ledger.open(there.pulled(name))
    tally.losing(missing(ledger, expected))
    assert told(ledger) == told(expected)


@pytest.mark.fault("10 storage unwritable or gone")
def test_a_short_outage_is_waited_out(twin, gate, machine, small_space, tally):
    """No answer for three seconds, then 500 for three: retried by the library, one session, equal to the twin."""
    expected = Ledger.open(twin.directory)
    here = machine("here")
    process = here.start(*sweep_of(small_space, "short"))
    for events, mode in ((8, "closed"), (20, 500)):
        until(here.mirror("short"), events, process)
        before = gate.turned_away
        gate.mode = mode
        time.sleep(3)
        gate.mode = "open"
        assert gate.turned_away > before
        tally.happened()
    output, _ = process.communicate(timeout=TIMEOUT)

    assert process.returncode == 0, output
    ledger = Ledger.open(here.pulled("short"))
    tally.losing(missing(ledger, expected))
    assert len(ledger.sessions) == 1
    assert told(ledger) == told(expected)


@pytest.mark.fault("15 two drivers")
def test_a_second_driver_is_refused(gate, machine, small_space, tally):
    """Two machines, one sweep: the second watches the lease, sees it renewed, names the first, exits 2."""
    first, second = machine("first"), machine("second")
    process = first.start(*sweep_of(small_space, "busy"), "--trials", "60")
    until(first.mirror("busy"), 3, process)
    late = second.start("resume", f"{SWEEPS}/busy")
    output, _ = late.communicate(timeout=TIMEOUT)

    assert late.returncode == 2, output
    assert f"in use by process {process.pid}" in output
    tally.happened()
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 130, output
    assert f"research resume {SWEEPS}/busy" in output
    assert "lock" not in ObjectStore(f"{SWEEPS}/busy").names(), "released"


def test_a_data_set_in_the_store_is_copied_once(gate, machine, small_space):
    """--data-dir s3://...: one copy on the machine for the driver and all workers; the address is what is recorded."""
    filesystem = _filesystem("s3")
    raw = json.dumps({"any": "file"}).encode()
    filesystem.pipe_file(f"{BUCKET}/data/digits-note.json", raw)
    here = machine("here")
    process = here.start(*sweep_of(small_space, "data"), "--data-dir", f"s3://{BUCKET}/data")
    output, _ = process.communicate(timeout=TIMEOUT)

    assert process.returncode == 0, output
    copies = list((here.cache / "data" / "s3" / BUCKET / "data").glob("v-*"))
    assert len(copies) == 1
    assert (copies[0] / "digits-note.json").read_bytes() == raw
    assert Ledger.open(here.pulled("data")).settings.data_dir == f"s3://{BUCKET}/data"

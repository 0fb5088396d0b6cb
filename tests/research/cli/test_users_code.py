"""Code of a user that ends the process: every verb says so in one line; a real Ctrl-C ends every verb."""

from __future__ import annotations

import dataclasses
import signal
import subprocess
import time

import pytest

from research import provenance
from research.ledger.log import Ledger
from tests.support.synthetic import row, session, sweep, trial
from tests.support.verbs import command, environment, research

pytestmark = pytest.mark.slow
SPACE = """
import sys, os, time
from vae.train_config import TrainConfig
def space(trial):
    {draw}
    return TrainConfig()
{after}
"""


def write(folder, draw="pass", after=""):
    """A space whose draw runs ``draw`` and whose import ends with ``after``."""
    path = folder / "mine.py"
    path.write_text(SPACE.format(draw=draw, after=after))
    return path


@pytest.mark.parametrize("code", ["sys.exit(0)", "raise KeyboardInterrupt"])
@pytest.mark.parametrize("where", ["draw", "after"])
@pytest.mark.parametrize("verb", ["sweep", "plan", "train"])
def test_verb_with_a_space_that_ends_the_process_is_one_line(tmp_path, monkeypatch, verb, where, code):
    """Exit code 2, with the file and line."""
    monkeypatch.chdir(tmp_path)
    done = research(verb, write(tmp_path, **{where: code}))
    assert (done.code, done.output.count("\n")) == (2, 1), done.output
    assert "spaces and parts must not end the process" in done.output
    assert "mine.py, line" in done.output
    assert not (tmp_path / "sweeps").exists()


@pytest.mark.parametrize("where", ["draw", "after"])
def test_sweep_with_a_space_that_catches_ctrl_c_stops(tmp_path, where):
    """A real Ctrl-C that the space swallows ends the command all the same."""
    code = "print('ready', flush=True)\n{0}try: time.sleep(60)\n{0}except BaseException: pass"
    code = code.format("    " if where == "draw" else "")
    line = command("sweep", write(tmp_path, **{where: code}), "--storage", tmp_path / "s")
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment())
    assert process.stdout is not None
    while process.stdout.readline() != "ready\n":
        assert process.poll() is None
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=50)
    assert process.returncode == 130, output
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("where", ["draw", "after"])
def test_space_that_forks_leaves_one_driver(tmp_path, where, monkeypatch):
    """The plan is printed once, by one process."""
    monkeypatch.chdir(tmp_path)
    done = research("plan", write(tmp_path, **{where: "os.fork()"}), "--no-probe", "--draws", "2")
    assert done.code == 0, done.output
    assert "mine.py' forked has come back from it, and is ended" in done.output
    assert done.output.count("2 draws at random, none trained") == 1


PART = """
import pathlib
pathlib.Path({mark!r}).touch()
from dataclasses import dataclass
@dataclass(frozen=True)
class Mine:
    pass
"""


@pytest.mark.parametrize("verb", ["resume", "extend", "finalists"])
def test_going_on_compares_an_external_part_before_it_runs(tmp_path, verb):
    """Another file than the one whose hash is in the rows is refused, and nothing of it has run."""
    mark, part = tmp_path / "ran", tmp_path / "part.py"
    part.write_text(PART.format(mark=str(mark)))
    ledger = Ledger.create(tmp_path / "s", dataclasses.replace(sweep(), code=provenance.code()))
    ledger.append(session())
    path = f"{part}:Mine"
    config = {"objective": {"kind": "external", "path": path, "settings": {}}}
    ledger.append(trial(0, config=config))
    ledger.append(row(0, 0, -1.0, "continue", worker={"external": {path: "0" * 64}}))
    done = research(verb, tmp_path / "s", *(["--trials", "+1"] if verb == "extend" else []))
    assert done.code == 2, done.output
    assert "part.py:Mine' has changed since trial 0 ran" in done.output
    assert not mark.exists()

"""A real sweep whose space and parts end, interrupt and fork their process, in a directory full of our own names."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING

import pytest

from research.ledger.log import Ledger
from tests.support.verbs import environment

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
WAYS = ["not", "exit", "interrupt", "odd", "fork"]
SPACE = '''
import os
import sys
from pathlib import Path

import beside
from vae.external import External
from vae.networks import Mlp
from vae.train_config import TrainConfig


def space(trial):
    """One draw ends the process, another forks it, and only where a sweep has begun."""
    how = trial.suggest_categorical("how", {ways!r})
    if Path({begun!r}).exists():
        if how == "exit" and trial.suggest_int("again", 0, 0) == 0 and not Path({once!r}).exists():
            Path({once!r}).touch()
            beside.leave()
        if how == "odd":
            os.fork()
    part = External(path="part.py:Ending", settings={{"how": how}})
    return TrainConfig(network=Mlp(hidden=(8,)), latent_size=2, objective=part, epochs=2)
'''
PART = '''
import os
import sys
from dataclasses import dataclass

from vae.objectives import Elbo


class Odd(BaseException):
    pass


@dataclass(frozen=True)
class Ending:
    """The negative ELBO, until the second epoch."""

    how: str = "not"
    kind = "ending"
    samples = 1
    importance_weighted = False
    posteriors = ("diagonal",)

    def loss(self, batch):
        """A scalar."""
        if batch.progress.step == batch.progress.steps_per_epoch:
            if self.how == "exit":
                sys.exit(0)
            if self.how == "interrupt":
                raise KeyboardInterrupt
            if self.how == "odd":
                raise Odd
            if self.how == "fork":
                os.fork()
        return Elbo().loss(batch)

    def annealing_epochs(self, epochs):
        """None."""
        return 0

    def cycle_epochs(self, epochs):
        """None."""
'''


def our_names(folder: Path) -> None:
    """Files and folders of our packages' names; importing one fails."""
    (folder / "research").mkdir(parents=True)
    for name in ("vae.py", "search_spaces.py", "research/__init__.py"):
        (folder / name).write_text("raise RuntimeError('the working directory was imported')\n")


def test_sweep_outlives_code_that_ends_interrupts_or_forks_its_process(tmp_path: Path) -> None:
    """Each is its own trial's failure, in one line, at the first attempt; the others complete; one driver is left."""
    work = tmp_path / "work"
    our_names(work)
    (tmp_path / "space").mkdir()
    space = tmp_path / "space" / "mine.py"
    begun, once = tmp_path / "s" / "ledger", tmp_path / "once"
    space.write_text(SPACE.format(ways=WAYS, begun=str(begun), once=str(once)))
    (tmp_path / "space" / "beside.py").write_text("import sys\ndef leave(): sys.exit(0)\n")
    (work / "part.py").write_text(PART)
    line = [
        sys.executable, "-P", "-m", "research.cli", "sweep", str(space), "--trials", str(len(WAYS)), "--sampler", "grid",
        "--scheduler", "none", "--concurrent", "1", "--storage", str(tmp_path), "--name", "s", "--wandb", "offline",
    ]  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="u") as short:  # Ray's sockets allow no long path
        surroundings = environment() | {"TMPDIR": short}
        done = subprocess.run(line, cwd=work, env=surroundings, capture_output=True, text=True, check=False)
        left = os.listdir(short)  # noqa: PTH208 - names alone
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    ledger = Ledger.open(tmp_path / "s")
    by_way = {}
    for view in ledger.trials.values():
        by_way.setdefault(view.created.params["how"], []).append(
            (view.status, view.fail_kind, view.attempt, view.reason)
        )
    assert [ended[:3] for ended in by_way["not"]] == [("COMPLETE", None, 0)]
    assert [ended[:3] for ended in by_way["fork"]] == [("COMPLETE", None, 0)]
    assert len(ledger.sessions) == 1
    reasons = {}
    for way in ("exit", "interrupt", "odd"):
        assert {ended[0] for ended in by_way[way]} == {"FAIL"}
        assert all(ended[2] == 0 for ended in by_way[way]), "nothing was tried again"
        reasons[way] = " ".join(ended[3] for ended in by_way[way])
    assert "space" in reasons["exit"]
    assert "raised SystemExit(0) (beside.py, line 2)" in reasons["exit"]
    assert "raised KeyboardInterrupt() (part.py, line" in reasons["interrupt"]
    assert "raised Odd() (part.py, line" in reasons["odd"]
    assert output.count("5 trials of space") == 1
    assert not [name for name in left if "wandb" in name or name.startswith("rw-")]
    assert os.listdir(tmp_path / "s" / "wandb" / "finished")  # noqa: PTH208 - the sink imported nothing of the directory

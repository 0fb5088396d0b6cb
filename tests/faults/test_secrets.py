"""A canary for a secret: after a run, a crash and a kill it stands in no file, no process list and no output."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest

from research.cli import app as cli
from research.ledger.log import Ledger
from tests.support.services import command_line, family, start, wait_until
from tests.support.verbs import SPACE, command, environment
from tests.support.wandb_help import alive

CANARY = "canary0f5e7d"
SECRETS = {
    "WANDB_API_KEY": (CANARY * 4)[:40],
    "AWS_SECRET_ACCESS_KEY": f"{CANARY}-aws",
    "HF_TOKEN": f"{CANARY}-hf",
    # No server is there: what is logged is logged offline, with these in the environment.
    "WANDB_BASE_URL": f"http://me:{CANARY}@127.0.0.1:1",
    "HTTPS_PROXY": f"http://me:{CANARY}@127.0.0.1:1",
}

LEAKY = '''
import os
from dataclasses import dataclass
from pathlib import Path

from vae.objectives.loss import Loss


@dataclass(frozen=True)
class Leaky:
    """Fails once, in a worker, with a secret in its message."""

    kind = "leaky"
    samples = 1
    importance_weighted = False
    posteriors = ("diagonal",)

    def loss(self, batch):
        """The bound; the first time the error."""
        marker = Path(__file__).with_name("failed-once")
        if b"ray::" in Path("/proc/self/cmdline").read_bytes() and not marker.exists():
            marker.touch()
            raise RuntimeError(f"can't sign in with {os.environ['AWS_SECRET_ACCESS_KEY']}")
        return Loss(batch.terms.reconstruction.mean() + batch.terms.kl.sum(1).mean(), {})

    def annealing_epochs(self, epochs):
        """None."""
        return 0

    def cycle_epochs(self, epochs):
        """None."""


from vae.data import Digits
from vae.external import External
from vae.likelihoods import Binomial
from vae.networks import Mlp
from vae.optimizers import Adam
from vae.train_config import TrainConfig


def space(trial):
    """Trials that go on until they are stopped."""
    return TrainConfig(
        data=Digits(), likelihood=Binomial(), network=Mlp(hidden=(16,)), latent_size=2,
        objective=External(path=f"{__file__}:Leaky", settings={}),
        optimizer=Adam(lr=trial.suggest_float("lr", 1e-4, 1e-3, log=True)), epochs=100_000,
    )
'''


def holding(*folders: Path) -> list[Path]:
    """The files that hold the canary."""
    paths = [path for folder in folders for path in folder.rglob("*")]
    files = [path for path in paths if path.is_file() and not path.is_symlink()]
    return [path for path in files if CANARY.encode() in path.read_bytes()]


@pytest.fixture
def short(tmp_path_factory):
    """A temporary folder with a short path: Ray puts sockets there."""
    with tempfile.TemporaryDirectory(prefix="t-") as folder:
        yield Path(folder)


@pytest.mark.faults
@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.fault("23 secrets")
def test_a_sweep_that_ends_leaves_no_secret(tmp_path, short, tally):
    """Its directory, W&B's folders, the home, the temporary folder, the output, the report, every process's arguments."""
    space = tmp_path / "my_space.py"
    space.write_text(SPACE)
    (home := tmp_path / "home").mkdir()
    variables = SECRETS | {"HOME": str(home), "TMPDIR": str(short)}
    arguments = [
        "sweep",
        space,
        "--trials",
        "2",
        "--name",
        "s",
        "--storage",
        tmp_path,
        "--wandb",
        "online",
        "--concurrent",
        "1",
    ]
    process = start(*arguments, **variables)
    directory = tmp_path / "s"
    seen: dict[int, str] = {}
    ray_files: list[Path] = []

    def looked() -> bool:
        seen.update({pid: command_line(pid) for pid in family(process.pid)})
        ray_files.extend(holding(short))
        return (directory / "ledger" / "00000008.json").exists()

    wait_until(looked, process)
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    assert any("raylet" in line for line in seen.values())
    assert any("research.tracking" in line for line in seen.values())
    assert [line for line in seen.values() if CANARY in line] == []
    assert CANARY not in output
    assert "WANDB_BASE_URL" in output  # it was refused to W&B, in a line
    assert ray_files == []
    for verb in (["report", directory], ["show", directory, "--json"]):
        done = subprocess.run(
            command(*verb), capture_output=True, text=True, timeout=300, check=True, env=environment() | variables
        )
        assert CANARY not in done.stdout + done.stderr
    assert list((directory / "wandb").glob("offline-run-*"))
    assert holding(directory, home, short) == []
    tally.happened(len(SECRETS))


@pytest.mark.faults
@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.fault("23 secrets")
def test_a_worker_that_shouts_a_secret_and_a_killed_driver_leave_none(tmp_path, short, tally):
    """An exception that quotes a secret is recorded without it; after SIGKILL also Ray's own folder has none."""
    space = tmp_path / "leaky.py"
    space.write_text(LEAKY)
    (home := tmp_path / "home").mkdir()
    arguments = [
        "sweep",
        space,
        "--trials",
        "3",
        "--name",
        "s",
        "--storage",
        tmp_path,
        "--wandb",
        "offline",
        "--concurrent",
        "1",
    ]
    process = start(*arguments, **SECRETS, HOME=str(home), TMPDIR=str(short))
    directory = tmp_path / "s"

    def failed_and_going_on() -> bool:
        if not (directory / "ledger" / "00000004.json").exists():
            return False
        trials = Ledger.open(directory).trials
        return trials[0].terminal and 1 in trials and len(trials[1].rows) > 2

    wait_until(failed_and_going_on, process)
    ours = family(process.pid)
    assert [line for line in map(command_line, ours) if CANARY in line] == []
    process.kill()
    output, _ = process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL
    wait_for_the_end(ours)
    (failed,) = [view for view in Ledger.open(directory).trials.values() if view.status == "FAIL"]
    assert failed.reason == "RuntimeError: can't sign in with ***"
    tally.happened(2)
    assert CANARY not in output
    assert list(short.glob("rr-*/r/session_*/logs/*")), "Ray's logs were looked at"
    assert holding(directory, home, short) == []


def wait_for_the_end(pids: list[int]) -> None:
    """Ray's processes end by themselves when their driver is gone."""
    import time

    until = time.monotonic() + 120
    while any(map(alive, pids)) and time.monotonic() < until:
        time.sleep(0.2)
    for pid in filter(alive, pids):  # what is left is this test's own
        os.kill(pid, signal.SIGKILL)


@pytest.mark.fault("23 secrets")
def test_the_traceback_of_a_bug_shows_no_secret(monkeypatch, capsys, tally):
    """Exit code 1 and Python's traceback, with the secret's value taken out."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", CANARY)

    def broken(**arguments):
        raise RuntimeError(f"signing with {CANARY} failed")

    monkeypatch.setattr(cli, "app", broken)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = capsys.readouterr().err
    assert ended.value.code == 1
    assert "Traceback" in said
    assert "RuntimeError: signing with *** failed" in said
    assert CANARY not in said
    tally.happened()

"""Trials that fail in a real sweep, each in its own way: typed, counted, bounded, and no other trial is touched."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from research.ledger.events import TrialRetried
from research.ledger.log import Ledger
from tests.support.verbs import command, environment, research, told

if TYPE_CHECKING:
    from collections.abc import Collection

pytestmark = [pytest.mark.faults, pytest.mark.long, pytest.mark.timeout(600)]

PARTS = '''
import math
import os
import resource
import time
from dataclasses import dataclass

import ray
import torch

from vae.objectives import Elbo
from vae.objectives.loss import Loss


@dataclass(frozen=True)
class Failing:
    """The negative ELBO, until something goes wrong as ``how`` says: in the epoch after ``at`` whole ones."""

    how: str = "not"
    at: int = 0
    kind = "failing"
    samples = 1
    importance_weighted = False
    posteriors = ("diagonal",)

    def loss(self, batch):
        """A scalar."""
        loss = Elbo().loss(batch)
        if batch.progress.step < self.at * batch.progress.steps_per_epoch:
            return loss
        if self.how == "loss":
            return Loss(loss.total * math.nan)
        if self.how == "infinite":
            return Loss(loss.total * math.inf)
        if self.how == "gradient":
            return Loss(loss.total + (batch.terms.kl.sum() * 0.0).sqrt())  # its derivative is infinite times 0
        if self.how == "python memory":
            with limited():
                bytearray(64 * 2**30)
        if self.how == "torch memory":
            with limited():
                torch.empty(64 * 2**30, dtype=torch.uint8)
        if self.how == "gpu memory":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 64.00 GiB.")
        if self.how == "share of a gpu" and ray.get_runtime_context().get_assigned_resources()["GPU"] < 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 64.00 GiB.")
        if self.how == "bug":
            raise KeyError("no such layer")
        if self.how == "slow":
            if "STEPS" in os.environ and b"ray::" in open("/proc/self/cmdline", "rb").read():  # not in the survey
                with open(os.environ["STEPS"], "a") as steps:
                    steps.write(f"{os.getpid()} {batch.progress.step}\\n")
            time.sleep(0.3)
        return loss

    def annealing_epochs(self, epochs):
        """None."""
        return 0

    def cycle_epochs(self, epochs):
        """None."""


class limited:
    """The address space of this process may not grow by more than a GiB in here."""

    def __enter__(self):
        self.before = resource.getrlimit(resource.RLIMIT_AS)
        pages = int(open("/proc/self/statm").read().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * os.sysconf("SC_PAGE_SIZE") + 2**30, self.before[1]))

    def __exit__(self, *_):
        resource.setrlimit(resource.RLIMIT_AS, self.before)
'''

SPACE = '''
from vae.data import Digits
from vae.external import External
from vae.likelihoods import Binomial
from vae.networks import Mlp
from vae.train_config import TrainConfig


def space(trial):
    """Each way of failing once."""
    how = trial.suggest_categorical("how", {ways!r})
    return TrainConfig(
        data=Digits(),
        likelihood=Binomial(),
        network=Mlp(hidden=(8,)),
        latent_size=trial.suggest_int("latent_size", 2, {widest}),
        objective=External(path={parts!r}, settings={{"how": how.partition("@")[0], "at": int(how.partition("@")[2] or 0)}}),
        epochs=4,
    )
'''


def write_space(folder: Path, ways: list[str], widest: int = 2) -> Path:
    """A space whose trials fail in these ways, with its parts beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "parts.py").write_text(PARTS)
    path = folder / "failing.py"
    path.write_text(SPACE.format(ways=ways, parts=f"{folder / 'parts.py'}:Failing", widest=widest))
    return path


def arguments(space: Path, storage: Path, *more: object, name: str = "s") -> list[str]:
    """A sweep without early stopping."""
    return [
        "sweep", str(space), "--name", name, "--storage", str(storage), "--scheduler", "none", "--wandb", "disabled",
        *map(str, more),
    ]  # fmt: skip


def by_way(ledger: Ledger) -> dict[str, object]:
    """Trials by how they were to fail."""
    return {str(view.created.params["how"]): view for view in ledger.trials.values()}


WAYS = [
    "not", "loss@0", "loss@2", "infinite@1", "gradient@0", "gradient@1", "python memory@1", "torch memory@1", "gpu memory@1",
    "bug@1",
]  # fmt: skip


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """A sweep with one trial for each way to fail, and one that does not."""
    storage = tmp_path_factory.mktemp("everything")
    space = write_space(storage / "space", WAYS)
    ran = research(*arguments(space, storage, "--trials", len(WAYS), "--sampler", "grid", "--concurrent", 2))
    return Ledger.open(storage / "s"), ran


@pytest.mark.fault("7 not finite")
@pytest.mark.parametrize(
    ("way", "epoch"), [("loss@0", 1), ("loss@2", 3), ("infinite@1", 2), ("gradient@0", 1), ("gradient@1", 2)]
)
def test_a_trial_that_is_no_longer_finite_ends_within_one_report(everything, tally, way, epoch):
    """NaN or infinity in loss or gradient: FAIL as diverged in that epoch, told so to Optuna, never ranked."""
    ledger, ran = everything
    view = by_way(ledger)[way]
    assert (view.status, view.fail_kind) == ("FAIL", "diverged"), ran.output
    assert max(view.rows) == epoch
    tally.happened()
    assert view not in ledger.ranked()
    assert study_states(ledger)[view.number] == "FAIL"


@pytest.mark.fault("6 out of memory")
@pytest.mark.parametrize("way", ["python memory@1", "torch memory@1", "gpu memory@1"])
def test_out_of_memory_has_its_name(everything, tally, way):
    """RLIMIT_AS met by Python and by torch, and CUDA's own error raised by a stand-in: FAIL, not tried again."""
    ledger, ran = everything
    view = by_way(ledger)[way]
    assert (view.status, view.fail_kind) == ("FAIL", "out_of_memory"), ran.output
    assert view.attempt == 0
    tally.happened()
    tally.losing(1 - len(view.rows))


@pytest.mark.fault("8 trials that fail")
def test_others_go_on_and_each_failure_is_counted(everything, tally):
    """The healthy trial completes and is the best; the last lines say how many failed of each kind; exit code 0."""
    ledger, ran = everything
    assert ran.code == 0, ran.output
    kinds = Counter(view.fail_kind for view in ledger.trials.values() if view.status == "FAIL")
    assert kinds == {"diverged": 5, "out_of_memory": 3, "bug": 1}
    assert "failed: 5 diverged, 3 out_of_memory, 1 bug" in ran.output
    tally.happened(kinds.total())
    assert [view.created.params["how"] for view in ledger.ranked()] == ["not"]
    tally.losing(sum(not view.terminal for view in ledger.trials.values()))
    assert "KeyError: 'no such layer'" in by_way(ledger)["bug@1"].reason


def study_states(ledger: Ledger) -> list[str]:
    """What Optuna was told."""
    import optuna

    backend = optuna.storages.journal.JournalFileBackend(str(ledger.directory / "study.journal"))
    study = optuna.load_study(study_name=ledger.settings.name, storage=optuna.storages.JournalStorage(backend))
    return [trial.state.name for trial in study.trials]


def failed(ledger: Ledger) -> list[str | None]:
    """The kinds of the trials that failed; a draw that was tried before is skipped and is none."""
    return [view.fail_kind for view in ledger.trials.values() if view.status == "FAIL"]


@pytest.mark.fault("8 trials that fail")
def test_a_sweep_in_which_everything_fails_is_not_run_to_its_end(tmp_path, tally):
    """Three in a row with --max-failed 3: nothing more starts, exit code 1, kinds and counts; a resume tries again."""
    space = write_space(tmp_path / "space", ["bug@1"], widest=40)
    asked = ("--trials", 30, "--sampler", "random", "--concurrent", 1, "--max-failed", 3)
    ran = research(*arguments(space, tmp_path, *asked))
    ledger = Ledger.open(tmp_path / "s")
    assert ran.code == 1, ran.output
    assert failed(ledger) == ["bug"] * 3
    tally.happened(3)
    assert "--max-failed 3: the last 3 trials failed (3 bug)" in ran.output
    assert "KeyError: 'no such layer'" in ran.output

    again = research("resume", tmp_path / "s")
    ledger.refresh()
    assert again.code == 1, again.output
    assert failed(ledger) == ["bug"] * 6
    tally.happened(3)


def start(*asked: object, **variables: str) -> subprocess.Popen[str]:
    """Begin ``research`` in the background."""
    return subprocess.Popen(
        command(*asked), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment() | variables
    )


def worker_of(directory: Path, process: subprocess.Popen[str]) -> tuple[int, int]:
    """A running trial that has a row, and its worker's process."""
    while True:
        assert process.poll() is None, process.stdout.read()
        if (directory / "ledger" / "00000003.json").exists():
            for view in Ledger.open(directory).trials.values():
                if not view.terminal and view.rows:
                    return view.number, view.rows[max(view.rows)].worker["pid"]
        time.sleep(0.05)


@pytest.fixture(scope="module")
def slow_twin(tmp_path_factory):
    """Two slow trials that nothing happens to; their space."""
    folder = tmp_path_factory.mktemp("slow")
    space = write_space(folder / "space", ["slow@0"], widest=3)
    asked = ("--trials", 2, "--sampler", "grid", "--concurrent", 1)
    ran = research(*arguments(space, folder, *asked))
    assert ran.code == 0, ran.output
    return space, asked, told(Ledger.open(folder / "s"))


def gone(pid: int) -> bool:
    """Whether no such process is left, or only its entry."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except FileNotFoundError:
        return True
    return stat.rpartition(")")[2].split()[0] in "ZX"


@pytest.mark.fault("5 stuck trial")
def test_a_stuck_worker_is_ended_and_its_trial_goes_on(slow_twin, tmp_path, tally):
    """SIGSTOP: ended after the deadline, run again from its checkpoint; SIGCONT later reports nothing twice."""
    space, asked, expected = slow_twin
    directory = tmp_path / "s"
    process = start(*arguments(space, tmp_path, *asked, "--stuck-minutes", 0.2))
    number, pid = worker_of(directory, process)
    os.kill(pid, signal.SIGSTOP)
    while not any(view.attempt for view in Ledger.open(directory).trials.values()):
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.2)
    with contextlib.suppress(ProcessLookupError):  # it may have been ended already
        os.kill(pid, signal.SIGCONT)
    output, _ = process.communicate(timeout=400)

    ledger = Ledger.open(directory)
    assert process.returncode == 0, output
    assert ledger.trials[number].attempt == 1
    assert "no epoch for longer than --stuck-minutes" in output
    tally.happened()
    assert told(ledger) == expected
    tally.losing(sum(not view.terminal for view in ledger.trials.values()))
    assert gone(pid)


@pytest.mark.fault("4 SIGTERM")
def test_a_worker_that_gets_sigterm_saves_the_middle_of_its_epoch(slow_twin, tmp_path, tally):
    """SIGTERM to a trial's process, in two epochs and twice in one: nothing is trained again, and all is equal to the twin."""
    space, asked, expected = slow_twin
    directory, steps = tmp_path / "s", tmp_path / "steps"
    process = start(*arguments(space, tmp_path, *asked), STEPS=str(steps))
    per_epoch = expected[0][-1][1][0]["step"]  # as trial 0's first row has it
    pids = set[int]()
    for least in (per_epoch + 1, 2 * per_epoch + 1, 2 * per_epoch + 4):
        pid = await_step(process, steps, least, other_than=pids)
        os.kill(pid, signal.SIGTERM)
        pids.add(pid)
        while not gone(pid):
            assert process.poll() is None, process.stdout.read()
            time.sleep(0.05)
        tally.happened()
    output, _ = process.communicate(timeout=400)

    ledger = Ledger.open(directory)
    assert process.returncode == 0, output
    assert told(ledger) == expected
    retried = retries(directory)
    assert [event.cause for event in retried] == ["preempted"] * 3
    said = r"the worker was told to end \(SIGTERM\); saved after step (\d+), in epoch (\d)"
    saved = [tuple(map(int, re.fullmatch(said, event.reason).groups())) for event in retried]
    assert [epoch for _, epoch in saved] == [2, 3, 3]
    assert f"saved after step {saved[0][0]}, in epoch 2; it continues from there" in output
    # The rows of an attempt say where it began; the second attempt ended before it had one.
    began = {row.attempt: row.worker.get("continued_after_step") for row in ledger.trials[0].rows.values()}
    assert began == {0: None, 1: saved[0][0], 3: saved[2][0]}
    assert [step for _, step in begun_steps(steps)] == 2 * [*range(4 * per_epoch)], "each step once"
    tally.losing(sum(not view.terminal for view in ledger.trials.values()))


@pytest.mark.fault("4 asked to stop")
def test_ctrl_c_in_mid_epoch_loses_no_step(slow_twin, tmp_path, tally):
    """Stopped and resumed in one epoch, also at a worker's first step: each step is trained once, all is equal to the twin."""
    space, asked, expected = slow_twin
    directory, steps = tmp_path / "s", tmp_path / "steps"
    per_epoch = expected[0][-1][1][0]["step"]
    process = start(*arguments(space, tmp_path, *asked), STEPS=str(steps))
    pids = set[int]()
    for least in (per_epoch + 1, 0, per_epoch + 5):
        pids.add(await_step(process, steps, least, other_than=pids))
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=100)
        assert process.returncode == 130, output
        assert "Traceback" not in output
        assert "ERROR" not in output
        tally.happened()
        process = start("resume", directory, STEPS=str(steps))
    output, _ = process.communicate(timeout=400)
    assert process.returncode == 0, output
    ledger = Ledger.open(directory)
    assert told(ledger) == expected
    assert [step for _, step in begun_steps(steps)] == 2 * [*range(4 * per_epoch)], "each step once"
    tally.losing(sum(not view.terminal for view in ledger.trials.values()))


def await_step(process: subprocess.Popen[str], file: Path, least: int, other_than: Collection[int] = ()) -> int:
    """Wait until the latest step is ``least`` or later, begun by a worker that is none of ``other_than``; that worker."""
    pid, step = 0, -1
    while step < least or pid in other_than:
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.05)
        pid, step = begun_steps(file)[-1] if file.exists() else (0, -1)
    return pid


def begun_steps(file: Path) -> list[tuple[int, int]]:
    """The steps that slow trials have begun: process and number, in the order of time."""
    return [tuple(map(int, line.split())) for line in file.read_text(encoding="utf-8").splitlines()]


# No test machine has a GPU: Ray is told of one that does not exist, and what would train on it trains on the CPU.
ONE_GPU = """
import functools, sys
import ray
from research.cli import app as cli
from research.planning import resources
from research.driver import session as sweep
resources.local_gpus = lambda: 1
sweep.device_of = lambda _: "cpu"
ray.init = functools.partial(ray.init, num_gpus=1)
cli.main()
"""


@pytest.mark.fault("6 out of memory")
def test_out_of_a_share_of_a_gpu_is_run_again_with_a_whole_one(tmp_path, tally):
    """Its share is too small: a retry that says so; the driver is killed; resumed, it has a whole GPU, and completes."""
    space = write_space(tmp_path / "space", ["share of a gpu@1", "slow@0", "not"])
    directory = tmp_path / "s"
    shares = ("--cpus-per-trial", 1, "--gpus-per-trial", 0.5, "--concurrent", 2)
    asked = arguments(space, tmp_path, "--trials", 3, "--sampler", "grid", *shares)

    def driver(*words: object) -> subprocess.Popen[str]:
        line = [sys.executable, "-c", ONE_GPU, *map(str, words)]
        return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment())

    process = driver(*asked)
    while not retries(directory):
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.05)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    event = retries(directory)[0]
    assert event.cause == "out_of_memory"
    assert event.reason.startswith("OutOfMemoryError: CUDA out of memory")
    tally.happened()

    resumed = driver("resume", directory)
    output, _ = resumed.communicate(timeout=400)
    ledger = Ledger.open(directory)
    assert resumed.returncode == 0, output
    assert [view.status for view in ledger.trials.values()] == ["COMPLETE"] * 3
    assert sorted(by_way(ledger)["share of a gpu@1"].rows) == [1, 2, 3, 4]
    assert [event.cause for event in retries(directory)].count("out_of_memory") == 1


def retries(directory: Path) -> list[TrialRetried]:
    """The ledger's retries so far."""
    if not (directory / "ledger" / "00000000.json").exists():
        return []
    files = sorted((directory / "ledger").glob("[0-9]*.json"))
    events = [json.loads(path.read_text())["event"] for path in files]
    return [TrialRetried(**event) for event in events if event["type"] == "retry"]


SMALL_CLUSTER = """
import sys
import ray
context = ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False, _temp_dir=sys.argv[1])
from research.on_ray import capacity as cluster
print(context.address_info["gcs_address"], cluster.grows(), cluster.addable_nodes(), flush=True)
sys.stdin.read()
"""


def test_a_cluster_that_can_never_serve_a_trial_refuses_it(tmp_path):
    """A fixed cluster of one CPU, asked for two or for a GPU: one line, exit code 2, no sweep begun."""
    space = write_space(tmp_path / "space", ["not"])
    token = tmp_path / "token"
    token.write_text(secrets.token_hex(32))
    surroundings = environment() | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    with tempfile.TemporaryDirectory(prefix="rr") as short, subprocess.Popen(
        [sys.executable, "-c", SMALL_CLUSTER, short], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=surroundings,
    ) as owner:  # fmt: skip
        address, grows, addable = owner.stdout.readline().split()
        assert (grows, addable) == ("False", "[]")
        for more in (("--cpus-per-trial", 2), ("--gpus-per-trial", 1)):
            line = command(*arguments(space, tmp_path, "--address", address, "--concurrent", 1, *more))
            ran = subprocess.run(line, capture_output=True, text=True, timeout=300, env=surroundings, check=False)
            assert ran.returncode == 2, ran.stdout + ran.stderr
            assert "no node of the cluster can take a trial with" in ran.stderr
            assert "its nodes have (1 CPU)" in ran.stderr
            assert not (tmp_path / "s").exists()
        owner.stdin.close()


def test_a_cluster_whose_nodes_have_groups_may_grow(tmp_path):
    """What starts nodes names their groups: then no answer of what it may add is not taken for none."""
    surroundings = environment() | {"RAY_NODE_TYPE_NAME": "head"}
    with tempfile.TemporaryDirectory(prefix="rr") as short, subprocess.Popen(
        [sys.executable, "-c", SMALL_CLUSTER, short], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=surroundings | {"HOME": str(tmp_path)},
    ) as owner:  # fmt: skip
        _, grows, addable = owner.stdout.readline().split()
        assert (grows, addable) == ("True", "None")
        owner.stdin.close()

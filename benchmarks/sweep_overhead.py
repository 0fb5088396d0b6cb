"""What a sweep costs beside its training: cold start, warm start, two slots beside two bare processes, plain Ray Tune.

    RESEARCH_DATA_DIR=... python benchmarks/sweep_overhead.py [--trials 100] [--seconds 30] [--rounds 3]

The long trials are of MNIST where ``RESEARCH_DATA_DIR`` has it, and of the bundled digits: an epoch of the latter takes
some forty milliseconds, so that what happens between two epochs weighs most. Every figure is a ratio or a difference
taken within one run of one command; on a machine that does other things too
they are upper limits, and the load is printed. docs/performance.md keeps the tables.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from research import provenance
from research.ledger.log import Ledger

if TYPE_CHECKING:
    from research.ledger.trial_view import TrialView

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
SLOTS = 2
DATA_DIR = os.environ.get("RESEARCH_DATA_DIR")
PAGE = os.sysconf("SC_PAGE_SIZE") / 2**20

SPACE = """
from vae.data import Digits, Mnist
from vae.likelihoods import Binomial
from vae.networks import Mlp
from vae.optimizers import Adam
from vae.train_config import TrainConfig


def space(trial):
    return TrainConfig(
        data={data}(binarisation="none"),
        likelihood=Binomial(),
        network=Mlp(hidden=(trial.suggest_int("width", {low}, {high}),)),
        latent_size=trial.suggest_int("latent_size", 2, 8),
        optimizer=Adam(lr=trial.suggest_float("lr", 1e-4, 1e-2, log=True)),
        batch_size=trial.suggest_categorical("batch_size", [128, 256]),
        epochs={epochs},
    )
"""

# A bare process: the loop that a trial runs, and nothing around it. Waits for a line, so that two begin together.
BARE = """
import sys, time, json
import torch
torch.set_num_threads(1)
from pathlib import Path
from vae.data import load_training
from vae.serialization import from_dict
from vae.train import train
config = from_dict(json.loads(sys.argv[1]))
data = load_training(config.data, Path(sys.argv[2]) if len(sys.argv) > 2 else None)
next(train(config, data))
print("ready", flush=True)
sys.stdin.readline()
began = time.perf_counter()
for result in train(config, data):
    pass
print(json.dumps({"seconds": time.perf_counter() - began}), flush=True)
"""


class Memory:
    """The most that a process and all that it started had in memory together, in MB; shared pages count each time."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        """Looks twice a second, from now to the process's end."""
        self.process, self.most, self.driver = process, 0.0, 0.0
        self.thread = threading.Thread(target=self._look, daemon=True)
        self.thread.start()

    def _look(self) -> None:
        while self.process.poll() is None:
            parents, sizes = {}, {}
            for path in Path("/proc").glob("[0-9]*"):
                try:
                    fields = (path / "stat").read_text().rpartition(")")[2].split()
                except OSError:
                    continue
                parents[int(path.name)], sizes[int(path.name)] = int(fields[1]), int(fields[21]) * PAGE
            family = {self.process.pid}
            for _ in range(8):
                family |= {pid for pid, parent in parents.items() if parent in family}
            self.most = max(self.most, sum(sizes.get(pid, 0.0) for pid in family))
            self.driver = max(self.driver, sizes.get(self.process.pid, 0.0))
            time.sleep(0.5)


def sweep(
    folder: Path, name: str, *, trials: int, epochs: int, width: tuple[int, int], data: str = "Digits"
) -> tuple[Ledger, float, Memory]:
    """A sweep by the command line: its ledger, its wall clock from Enter to the end, its memory."""
    space = folder / f"{name}.py"
    space.write_text(SPACE.format(low=width[0], high=width[1], epochs=epochs, data=data))
    command = [sys.executable, "-m", "research.cli", "sweep", str(space), "--trials", str(trials), "--name", name]
    command += ["--storage", str(folder), "--scheduler", "none", "--wandb", "offline", "--concurrent", str(SLOTS)]
    command += ["--data-dir", DATA_DIR] if DATA_DIR else []
    began = time.time()
    with (folder / f"{name}.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, text=True)
        memory = Memory(process)
        if process.wait():
            sys.exit((folder / f"{name}.log").read_text()[-2000:])
    return Ledger.open(folder / name), time.time() - began, memory


def _time(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _ends(ledger: Ledger) -> list[list[TrialView]]:
    """Trials in order of their ends, for each worker process that ran them."""
    by_worker: dict[object, list[TrialView]] = {}
    for view in sorted(ledger.trials.values(), key=lambda view: view.updated):
        if view.final is not None:
            by_worker.setdefault(view.final.worker["pid"], []).append(view)
    return list(by_worker.values())


def gaps(ledger: Ledger) -> list[float]:
    """Seconds of each warm trial, from the end of the one before it in its worker, that were no training."""
    return [
        _time(later.updated) - _time(earlier.updated) - (later.seconds or 0.0)
        for views in _ends(ledger)
        for earlier, later in itertools.pairwise(views)
    ]


def starts(ledger: Ledger) -> list[float]:
    """Seconds from a trial's last row to the first of the next in its worker, less that epoch's training and evaluation."""
    rows: dict[int, list[tuple[float, dict[str, float]]]] = {}
    for file in sorted((ledger.directory / "ledger").glob("*.json")):
        envelope = json.loads(file.read_bytes())
        if envelope["event"]["type"] == "row":
            rows.setdefault(envelope["event"]["trial"], []).append(
                (_time(envelope["time"]), envelope["event"]["metrics"])
            )
    spent = ("time/train_seconds", "time/evaluation_seconds")
    return [
        rows[later.number][0][0] - rows[earlier.number][-1][0] - sum(rows[later.number][0][1][name] for name in spent)
        for views in _ends(ledger)
        for earlier, later in itertools.pairwise(views)
    ]


def overhead(ledger: Ledger) -> float:
    """The share of the slots' time, from a worker's first end to its last, that was no training or evaluation."""
    wall = sum(_time(views[-1].updated) - _time(views[0].updated) for views in _ends(ledger))
    return sum(gaps(ledger)) / wall


def plain(folder: Path, trials: int, epochs: int, *more: str) -> tuple[dict[str, float], Memory]:
    """The same by Ray Tune alone."""
    command = [sys.executable, str(HERE / "plain_tune.py"), str(folder), str(trials), str(epochs), str(SLOTS), *more]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    memory = Memory(process)
    output, _ = process.communicate()
    return json.loads(output.splitlines()[-1]), memory


def wandb_rows(folder: Path) -> tuple[int, int]:
    """How many runs W&B has, and how many rows in all."""
    from tests.support.wandb_reader import read_run

    runs = [read_run(path) for path in folder.glob("wandb/offline-run-*")]
    runs = [run for run in runs if run.job_type != "sweep"]
    return len(runs), sum(len(run.rows) for run in runs)


def bare(config: dict[str, object]) -> float:
    """Epochs a second of two bare processes of the same loop, side by side."""
    command = [sys.executable, "-c", BARE, json.dumps(config), *([DATA_DIR] if DATA_DIR else [])]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    both = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        for _ in range(SLOTS)
    ]
    for one in both:
        assert one.stdout is not None
        one.stdout.readline()
    for one in both:
        assert one.stdin is not None
        one.stdin.write("\n")
        one.stdin.flush()
    told = [json.loads(one.communicate()[0]) for one in both]
    epochs = config["epochs"]
    assert isinstance(epochs, int)
    return sum(epochs / one["seconds"] for one in told)


def spread(values: list[float], unit: str = "", digits: int = 2) -> str:
    """Median and range."""
    return f"{median(values):.{digits}f}{unit} ({min(values):.{digits}f}–{max(values):.{digits}f})"


def short(folder: Path, trials: int, epochs: int) -> None:
    """A hundred short trials: ours, plain Tune's with W&B's callback, and without."""
    began = time.time()
    ledger, wall, memory = sweep(folder, "ours", trials=trials, epochs=epochs, width=(8, 64))
    first = _time(ledger.first_row or "")
    warm, first_rows = gaps(ledger), starts(ledger)
    told, theirs = plain(folder / "plain", trials, epochs)
    without, its = plain(folder / "without", trials, epochs, "without-wandb")
    ours_w, plain_w = wandb_rows(ledger.directory), wandb_rows(folder / "plain")
    print(f"\n{trials} trials of {epochs} epochs on {SLOTS} slots\n")
    print("| | ours | Ray Tune alone | without W&B |\n|---|---|---|---|")
    print(f"| wall clock from Enter to the end, s | {wall:.0f} | {told['wall']:.0f} | {without['wall']:.0f} |")
    print(
        f"| of that until the first row, s | {first - began:.1f} | {told['first_row']:.1f} | {without['first_row']:.1f} |"
    )
    print(f"| driver's memory at most, MB | {memory.driver:.0f} | {theirs.driver:.0f} | {its.driver:.0f} |")
    print(f"| all processes' at most, MB | {memory.most:.0f} | {theirs.most:.0f} | {its.most:.0f} |")
    print(f"| W&B: runs, rows (of {trials * epochs}) | {ours_w[0]}, {ours_w[1]} | {plain_w[0]}, {plain_w[1]} | - |")
    print(
        f"\na warm trial, from the last row of the one before to its own first, less that epoch: {spread(first_rows, ' s')}"
    )
    print(f"all that is no training or evaluation in a warm trial: {spread(warm, ' s')}", flush=True)


def long(folder: Path, data: str, seconds: float, rounds: int) -> None:
    """Trials of ``seconds``: their overhead, and their speed beside two bare processes of the same loop."""
    ratios, shares, between = [], [], []
    width = (400, 400)
    probe, _, _ = sweep(folder, f"probe-{data}", trials=2, epochs=3, width=width, data=data)
    spent = [view.seconds or 0.0 for view in probe.trials.values()]
    epochs = max(3, round(3 * seconds / median(spent)))
    for number in range(rounds):
        name = f"long-{data}-{number}"
        ledger, _, _ = sweep(folder, name, trials=2 * SLOTS, epochs=epochs, width=width, data=data)
        shares.append(overhead(ledger))
        between += [gap / epochs for gap in gaps(ledger)]
        config = dict(ledger.trials[0].created.config)
        seconds_of = [
            _time(later.updated) - _time(earlier.updated)
            for views in _ends(ledger)
            for earlier, later in itertools.pairwise(views)
        ]
        ours = sum(epochs / one for one in seconds_of)
        ratios.append(ours / bare(config))
    print(f"\n{data}: trials of {seconds:g} s ({epochs} epochs), {rounds} rounds, {SLOTS} slots, cold start left out:")
    print(f"share of the slots' time that is no training or evaluation: {spread([100 * s for s in shares], ' %', 2)}")
    print(f"that is, for each epoch: {spread([1000 * gap for gap in between], ' ms', 0)}")
    print(f"epochs/s of two trials / of two bare processes: {spread(ratios, '', 3)}", flush=True)


def main() -> None:
    """The tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--rounds", type=int, default=3, help="of the long trials; 0: none")
    parser.add_argument("--quick", action="store_true", help="does it work? The figures mean nothing")
    options = parser.parse_args()
    if options.quick:
        options.trials, options.seconds, options.rounds = 4, 2.0, 1
    machine, versions = provenance.hardware(), provenance.versions()
    told = ", ".join(f"{name} {versions[name]}" for name in ("python", "torch", "ray", "optuna", "wandb"))
    print(f"{datetime.now(UTC):%Y-%m-%d}, {machine['cpu']}, {machine['usable_cores']} cores; {told}")
    print(f"load before: {os.getloadavg()[0]:.1f}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        if options.trials:
            short(Path(folder), options.trials, options.epochs)
        for data in ["Mnist", "Digits"] if DATA_DIR else ["Digits"]:
            if options.rounds:
                long(Path(folder), data, options.seconds, options.rounds)
    print(f"load after: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()

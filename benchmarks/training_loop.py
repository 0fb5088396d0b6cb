"""The training loop beside its peers: samples/s on one thread, all in one run, round by round.

Each loop lives in a process of its own (benchmarks/loops/) that trains one block when told to. A round asks
every loop for one block in turn, each round starting with another loop, so that a busy moment hits
all alike; ratios are taken within a round. benchmarks/README.md says what is compared and what is not.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import torch

from vae.data import DataError, Mnist, load_training

if TYPE_CHECKING:
    from collections.abc import Sequence

HERE = Path(__file__).resolve().parent
LOOPS = HERE / "loops"
PEERS_PYTHON = HERE / ".peers-venv" / "bin" / "python"
# Above this many cores used by others, wall-clock figures are not worth keeping.
BUSY = 0.3

sys.path.insert(0, str(LOOPS))
from layers import MODELS, Model  # noqa: E402 - the loops' own folder, from which they run too


@dataclass(frozen=True)
class Loop:
    """One row of the table."""

    title: str
    script: str
    does: str
    python: Path = Path(sys.executable)


PYTHAE = Loop("pythae", "pythae_trainer.py", "steps; its DataLoader, collate, progress bar", PEERS_PYTHON)
DATALOADER = Loop("DataLoader loop", "dataloader.py", "steps; PIL and ToTensor for each sample, .item()")
HANDWRITTEN = Loop("hand-written", "handwritten.py", "steps; nothing else")
OURS = Loop("ours", "ours.py", "steps, with its per-step metrics; no evaluation")
SGEMM = Loop("sgemm", "sgemm.py", "")
TRAINING = (PYTHAE, DATALOADER, HANDWRITTEN, OURS)
WHOLE_EPOCH = Loop("ours, whole epoch", "", "steps, and state copied, checks, row; no evaluation")


class Worker:
    """A loop's process, answering one line with one line."""

    def __init__(self, loop: Loop, setup: dict[str, object]) -> None:
        """Start it; it imports and builds while others do too."""
        environment = os.environ | {
            "OMP_NUM_THREADS": "1",
            "MKL_NUM_THREADS": "1",
            "PYTHONPATH": str(HERE.parent),
        }
        self.loop = loop
        self.errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed in close()
        self.process = subprocess.Popen(
            [loop.python, "-W", "ignore", LOOPS / loop.script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            env=environment,
            text=True,
        )
        self.tell(json.dumps(setup))

    def tell(self, line: str) -> None:
        """Send one line."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            self.fail()

    def answer(self) -> dict[str, Any]:
        """What it says to that."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.fail()
        answer: dict[str, Any] = json.loads(line)
        return answer

    def block(self) -> dict[str, Any]:
        """Have it train one block."""
        self.tell("block")
        return self.answer()

    def fail(self) -> None:
        """End the benchmark with what the process wrote last."""
        self.errors.seek(0)
        tail = self.errors.read().decode(errors="replace")[-2000:]
        sys.exit(f"{self.loop.title} ({self.loop.script}) ended early:\n{tail}")

    def close(self) -> None:
        """End it: it ends by itself when its stdin does."""
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.errors.close()


@dataclass
class Measured:
    """What the rounds of one model gave: samples/s by loop, round by round."""

    model: Model
    samples: int
    flops_per_sample: float
    peak: float = 0.0
    rates: dict[str, list[float]] = field(default_factory=dict)
    cpu_rates: dict[str, list[float]] = field(default_factory=dict)
    losses: dict[str, float] = field(default_factory=dict)
    others: list[float] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)


def measure(name: str, images: np.ndarray, rounds: int) -> Measured:
    """All loops on model ``name`` over the same ``images``, ``rounds`` times after one that doesn't count."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "images.npy"
        np.save(path, images)
        setup = {"model": name, "images": str(path), "threads": 1}
        workers = [Worker(loop, setup) for loop in (*TRAINING, SGEMM)]
        try:
            return _rounds(name, len(images), workers, rounds)
        finally:
            for worker in workers:
                worker.close()


def _rounds(name: str, samples: int, workers: list[Worker], rounds: int) -> Measured:
    about = {worker.loop.title: worker.answer() for worker in workers}
    sizes = {title: said["parameters"] for title, said in about.items() if "parameters" in said}
    if len(set(sizes.values())) > 1:
        sys.exit(f"{name}: the loops train different networks: parameters {sizes}")
    measured = Measured(MODELS[name], samples, about[SGEMM.title]["flops_per_sample"])
    measured.versions = {
        "pythae": about[PYTHAE.title]["pythae"],
        "torch": about[OURS.title]["torch"],
        "pythae's torch": about[PYTHAE.title]["torch"],
    }
    for worker in workers:
        worker.block()
    for number in range(rounds):
        start = number % len(workers)
        for worker in workers[start:] + workers[:start]:
            result = worker.block()
            title = worker.loop.title
            measured.others.append(result["others"])
            if worker.loop is SGEMM:
                measured.peak = max(measured.peak, result["flops"])
                continue
            measured.losses[title] = result["loss"]
            measured.cpu_rates.setdefault(title, []).append(samples / result["cpu"])
            if worker.loop is OURS:
                measured.rates.setdefault(title, []).append(samples / result["steps_wall"])
                measured.rates.setdefault(WHOLE_EPOCH.title, []).append(samples / result["wall"])
            else:
                measured.rates.setdefault(title, []).append(samples / result["wall"])
        print(f"\r{name}: round {number + 1} of {rounds}", end="", file=sys.stderr, flush=True)
    print("\r" + " " * 40 + "\r", end="", file=sys.stderr)
    return measured


def ratio(own: Sequence[float], base: Sequence[float]) -> str:
    """The median of the ratios of each round, and their range."""
    ratios = [a / b for a, b in zip(own, base, strict=True)]
    return f"{median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"


def table(name: str, measured: Measured) -> str:
    """One model's results in Markdown."""
    model = measured.model
    rows = [("loop", "samples/s", "range", "x pythae", "x DataLoader", "% of peak", "loss", "a round is")]
    for loop in (*TRAINING, WHOLE_EPOCH):
        rates = measured.rates[loop.title]
        rate = median(rates)
        loss = measured.losses.get(loop.title)
        rows.append(
            (
                loop.title,
                f"{rate:,.0f}",
                f"{min(rates):,.0f}-{max(rates):,.0f}",
                ratio(rates, measured.rates[PYTHAE.title]),
                ratio(rates, measured.rates[DATALOADER.title]),
                f"{100 * rate * measured.flops_per_sample / measured.peak:.0f}",
                "" if loss is None else f"{loss:.1f}",
                loop.does,
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |" for row in rows]
    lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    cpu = measured.cpu_rates
    others = median(measured.others)
    size = (
        f"{measured.samples:,} examples a round, {len(measured.rates[OURS.title])} rounds, 1 thread; "
        f"{measured.flops_per_sample / 1e6:.2f} MFLOP an example; sgemm {measured.peak / 1e9:.0f} GFLOP/s."
    )
    by_cpu = ", ".join(
        f"{ratio(cpu[OURS.title], cpu[peer.title])} x {peer.title}" for peer in (PYTHAE, DATALOADER, HANDWRITTEN)
    )
    results = "\n".join(lines)
    if math.isnan(others):
        load = "What other processes used is not known on this system."
    else:
        verdict = "too busy, trust only the line above" if others > BUSY else "quiet enough"
        load = f"Other processes used {max(0.0, others):.2f} cores (median over the blocks): {verdict}."
    return f"""## {name}: {model.description}, batch {model.batch}

{size}

{results}

By own CPU time, for a machine that others use too (our whole epoch): {by_cpu}.
{load}
"""


def machine() -> str:
    """CPU, cores and versions, in one line."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if "model name" in line]
        cpu = names[0] if names else cpu
    return f"{cpu}, {os.cpu_count()} cores; Python {platform.python_version()}, torch {torch.__version__}"


def load_images(data_dir: Path | None) -> tuple[np.ndarray, str]:
    """MNIST's training images, uint8 [N, 28, 28], or random bytes of that shape; and which of the two."""
    try:
        data = load_training(Mnist(validation=0, binarisation="expected"), data_dir)
    except DataError as error:
        random = np.random.default_rng(0).integers(0, 256, (6400, 28, 28), dtype=np.uint8)
        return random, f"random bytes in MNIST's shape ({error})"
    return data.train.images[:, 0].numpy(), "MNIST, training images"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=sorted(MODELS), default=sorted(MODELS))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--data-dir", type=Path, help="where MNIST is; default $RESEARCH_DATA_DIR")
    parser.add_argument("--quick", action="store_true", help="3 rounds of few examples: does it work?")
    parser.add_argument("--json", type=Path, help="also write every round's figures to this file")
    arguments = parser.parse_args()
    if not PEERS_PYTHON.exists():
        sys.exit(f"{PEERS_PYTHON} is missing: `make bench` makes the peers' environment and runs this")

    images, which = load_images(arguments.data_dir)
    print(f"# The training loop beside its peers\n\n{machine()}\nData: {which}", flush=True)
    kept = {}
    for name in arguments.models:
        model = MODELS[name]
        samples = 5 * model.batch if arguments.quick else model.samples
        measured = measure(name, images[:samples], 3 if arguments.quick else arguments.rounds)
        if not kept:
            print(f"Versions: {', '.join(f'{key} {value}' for key, value in measured.versions.items())}\n")
        print(table(name, measured), flush=True)
        kept[name] = {key: value for key, value in vars(measured).items() if key != "model"}
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine(), "data": which, "models": kept}, indent=1))


if __name__ == "__main__":
    main()

"""Training on a GPU: recorded steps and stacks beside the same loop launched kernel by kernel, and one written by hand.

All in one process, in turn, evaluation left out; the times are those of an epoch's steps, which end with a copy to the host.
``eager`` is the program's own loop where it records nothing, ``recorded`` what it does unasked, ``compiled`` what
``compile=True`` does, ``stack K`` K trials as one (``--stack K``), ``P processes`` as many recorded runs at once, each in a process,
as trials are that share a GPU. N is 784-64-10, B 784-2000-2000-50, the others are those of ``training_loop.py``.
Peaks are measured here: a large float32 matrix product as the program multiplies (no TF32), and a copy on the device.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import torch

import vae.train
from vae.data import Mnist, load_training
from vae.fast.stacked import train_stacked

sys.path.insert(0, str(Path(__file__).resolve().parent / "loops"))
import handwritten
from layers import MODELS, Model, Vae, flops_per_sample
from ours import config_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vae.data import TrainingData
    from vae.train_config import TrainConfig

GPU = torch.device("cuda")
LAYERS = {
    "N": Model("784-64-10, ReLU", (64,), (), 10, "relu", batch=100, samples=0),
    **MODELS,
    "B": Model("784-2000-2000-50, ReLU", (2000, 2000), (), 50, "relu", batch=128, samples=0),
}
PROCESSES_OF = "M1"
ADAM_BYTES = 28  # of each weight, that any Adam reads (weight, gradient, two moments) and writes (weight, two moments)


def by_hand(model: Model, data: TrainingData) -> Iterator[float]:
    """The best eager loop that one would write, with the data on the device; seconds of each epoch."""
    _, epoch = handwritten.training(model, data.train.images.to(GPU))
    while True:
        started = time.perf_counter()
        epoch()
        yield time.perf_counter() - started


def ours(config: TrainConfig, data: TrainingData, *, recorded: bool = True) -> Iterator[float]:
    """The program's loop; seconds of each epoch's steps."""
    with nullcontext() if recorded else patch.object(vae.train, "why_not_recorded", return_value="to compare"):
        epochs = vae.train.train(config, data, device=GPU)
        first = next(epochs)
    yield first.row["time/train_seconds"]
    for result in epochs:
        yield result.row["time/train_seconds"]


def stack(config: TrainConfig, data: TrainingData, members: int) -> Iterator[float]:
    """``members`` seeds of it as one; seconds of each epoch's steps."""
    configs = [dataclasses.replace(config, seed=seed) for seed in range(members)]
    for results in train_stacked(configs, data, device=GPU):
        yield sum(result.row["time/train_seconds"] for result in results.values())


def one_of_several(name: str, data: TrainingData, rounds: int) -> None:
    """What one process of several does: an epoch, then when all have come so far ``rounds`` more, and how long each took."""
    epochs = ours(config_of(LAYERS[name]), data)
    next(epochs)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    sys.stdout.write(json.dumps([next(epochs) for _ in range(rounds)]) + "\n")


def processes(name: str, count: int, asked: argparse.Namespace) -> list[float]:
    """``count`` runs at once; for each round the seconds in which all together do as much as one run in an epoch."""
    line = [sys.executable, __file__, "--one-of-several", name, "--rounds", str(asked.rounds)]
    line += [] if asked.data_dir is None else ["--data-dir", str(asked.data_dir)]
    started = [subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(count)]
    for process in started:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in started:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    taken = [json.loads(process.communicate()[0]) for process in started]
    return [1 / sum(1 / its for its in each) for each in zip(*taken, strict=True)]


def seconds(work: Callable[[], object], times: int) -> float:
    """The least that ``work`` takes of the device, after two calls."""
    taken = []
    for _ in range(times + 2):
        torch.cuda.synchronize()
        started = time.perf_counter()
        work()
        torch.cuda.synchronize()
        taken.append(time.perf_counter() - started)
    return min(taken[2:])


def peaks() -> tuple[float, float]:
    """Multiplications and additions a second in float32, and bytes a second read and written by a copy."""
    a, b = torch.randn((2, 8192, 8192), device=GPU)
    flops = 2 * 8192**3 / seconds(lambda: a @ b, 5)
    source = torch.randn(2**29, device=GPU)
    target = torch.empty_like(source)
    return flops, 2 * 4 * 2**29 / seconds(lambda: target.copy_(source), 5)


def measure(
    name: str, data: TrainingData, asked: argparse.Namespace, flops: float, bandwidth: float
) -> Iterator[dict[str, Any]]:
    """A line for each loop of one model."""
    model, count = LAYERS[name], len(data.train)
    config = config_of(model)
    loops: dict[str, tuple[int, Iterator[float]]] = {
        "by hand": (1, by_hand(model, data)),
        "eager": (1, ours(config, data, recorded=False)),
        "recorded": (1, ours(config, data)),
    }
    if name in asked.compile:
        loops["compiled"] = (1, ours(dataclasses.replace(config, compile=True), data))
    if not model.channels:
        loops |= {f"stack {k}": (k, stack(config, data, k)) for k in asked.members}
    first = {}
    for title, (_, epochs) in loops.items():
        started = time.perf_counter()
        next(epochs)
        first[title] = time.perf_counter() - started
    taken: dict[str, list[float]] = {title: [] for title in loops}
    for _ in range(asked.rounds):
        for title, (_, epochs) in loops.items():
            taken[title].append(next(epochs))
    by_run = {title: [epoch / members for epoch in taken[title]] for title, (members, _) in loops.items()}
    if name == PROCESSES_OF:
        by_run |= {f"{number} processes": processes(name, number, asked) for number in asked.processes}
    weights = sum(p.numel() for p in Vae(model).parameters())
    steps = -(-count // model.batch)
    for title, epochs in by_run.items():
        ratios = [eager / own for eager, own in zip(by_run["eager"], epochs, strict=True)]
        epoch = median(epochs)
        yield {
            "model": name,
            "loop": title,
            "us_a_step_of_one": 1e6 * epoch / steps,
            "examples_per_second": count / epoch,
            "times_eager": median(ratios),
            "lowest": min(ratios),
            "highest": max(ratios),
            "of_peak": count * flops_per_sample(model) / epoch / flops,
            "adam_of_bandwidth": weights * ADAM_BYTES * steps / epoch / bandwidth,
            "first_epoch_s": first.get(title),
        }


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=LAYERS, default=list(LAYERS))
    parser.add_argument("--members", nargs="+", type=int, default=[1, 8, 64])
    parser.add_argument("--compile", nargs="*", default=["M1", "M3"], help="models to measure compiled as well")
    parser.add_argument("--processes", nargs="*", type=int, default=[2, 4, 8], help=f"of {PROCESSES_OF}, at once")
    parser.add_argument("--one-of-several", choices=LAYERS, help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--data-dir", type=Path, default=os.environ.get("RESEARCH_DATA_DIR"))
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    asked = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("no CUDA device: this benchmark measures one")
    data = dataclasses.replace(load_training(Mnist(binarisation="expected"), asked.data_dir), validation=None)
    if asked.one_of_several is not None:
        one_of_several(asked.one_of_several, data, asked.rounds)
        return
    flops, bandwidth = peaks()
    sys.stdout.write(
        f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}, torch {torch.__version__}, Python {platform.python_version()}; "
        f"{len(data.train):,} examples; float32 {flops / 1e12:.1f} TFLOP/s, copy {bandwidth / 1e12:.2f} TB/s\n"
        f"{'model':6}{'loop':13}{'us a step':>10}{'examples/s':>14}  x eager              % of peak  Adam, % of bandwidth\n"
    )
    lines = []
    for name in asked.models:
        for line in measure(name, data, asked, flops, bandwidth):
            lines.append(line)
            ratio = f"{line['times_eager']:.2f} ({line['lowest']:.2f}-{line['highest']:.2f})"
            sys.stdout.write(
                f"{name:6}{line['loop']:13}{line['us_a_step_of_one']:10.1f}{line['examples_per_second']:14,.0f}  {ratio:20}"
                f"{100 * line['of_peak']:10.1f}{100 * line['adam_of_bandwidth']:22.1f}\n"
            )
            sys.stdout.flush()
        torch.cuda.empty_cache()
    if asked.json is not None:
        about = {
            "device": torch.cuda.get_device_name(),
            "torch": torch.__version__,
            "flops": flops,
            "bandwidth": bandwidth,
        }
        asked.json.write_text(json.dumps({"about": about, "lines": lines}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""Many models at once beside one after the other: a stack of K beside the same runs alone, in one process.

Both are the program's own loops, ``vae.fast.stacked.train_stacked`` and ``vae.train.train``, evaluation left out. A round asks
each stack for an epoch, and right before and after it a single run for one; ratios are taken there. Times are the
thread's own CPU time, so that another process's work does not count. Of GPUs ``gpu.py`` tells. S is 64-64-8 on the digits, N
784-64-10, M1 and M2 are those of ``training_loop.py``.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import torch
from training_loop import machine

from vae.data import Digits, Mnist, TrainingData, load_training
from vae.data.dataset import make_split
from vae.fast.stacked import train_stacked
from vae.likelihoods import Bernoulli
from vae.networks import Mlp
from vae.optimizers import Adam
from vae.train import train
from vae.train_config import TrainConfig

if TYPE_CHECKING:
    from collections.abc import Callable

DATA = Mnist(binarisation="expected")
MODELS = {
    "S": TrainConfig(data=Digits(), network=Mlp(hidden=(64,)), latent_size=8, batch_size=64, epochs=10_000),
    "N": TrainConfig(
        data=DATA, likelihood=Bernoulli(), network=Mlp(hidden=(64,)), latent_size=10, batch_size=100, epochs=10_000
    ),
    "M1": TrainConfig(
        data=DATA, likelihood=Bernoulli(), network=Mlp(hidden=(400,)), latent_size=20, batch_size=128, epochs=10_000
    ),
    "M2": TrainConfig(
        data=DATA,
        likelihood=Bernoulli(),
        network=Mlp(hidden=(200, 200), activation="tanh"),
        latent_size=50,
        batch_size=100,
        optimizer=Adam(eps=1e-4),
        epochs=10_000,
    ),
}
EXAMPLES = {"S": 1280, "N": 1000, "M1": 3200, "M2": 3000}


def examples(config: TrainConfig, count: int, data_dir: Path) -> TrainingData:
    """The first ``count`` training images, nothing held out."""
    data = load_training(config.data, data_dir)
    few = make_split("train", data.train.images[:count], data.train.labels[:count])
    return dataclasses.replace(data, train=few, validation=None)


def seconds(work: Callable[[], object]) -> float:
    """The CPU time that ``work`` takes of this thread."""
    started = time.thread_time()
    work()
    return time.thread_time() - started


def measure(name: str, members: list[int], rounds: int, data_dir: Path) -> list[dict[str, float]]:
    """One line for each number of members: epochs of a stack beside as many epochs of single runs."""
    config, data = MODELS[name], examples(MODELS[name], EXAMPLES[name], data_dir)
    single = train(dataclasses.replace(config, seed=99), data)
    stacks = {
        count: train_stacked([dataclasses.replace(config, seed=seed) for seed in range(count)], data)
        for count in members
    }
    next(single)
    for stack in stacks.values():
        next(stack)
    ratios: dict[int, list[float]] = {count: [] for count in members}
    rates: dict[int, list[float]] = {count: [] for count in members}
    for _ in range(rounds):
        before = seconds(lambda: next(single))
        for count, stack in stacks.items():
            together = seconds(lambda stack=stack: next(stack)) / count  # type: ignore[misc]
            after = seconds(lambda: next(single))
            ratios[count].append((before + after) / 2 / together)
            rates[count].append(len(data.train) / together)
            before = after
    return [
        {
            "model": name,
            "members": count,
            "speedup": median(ratios[count]),
            "lowest": min(ratios[count]),
            "highest": max(ratios[count]),
            "examples_per_second": median(rates[count]),
        }
        for count in members
    ]


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, help="default: all, or S where there is no MNIST")
    parser.add_argument("--members", nargs="+", type=int, default=[1, 2, 4, 8, 16])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--data-dir", type=Path, default=os.environ.get("RESEARCH_DATA_DIR"))
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    parser.add_argument("--quick", action="store_true", help="does it work? The figures mean nothing")
    asked = parser.parse_args()
    if asked.models is None:
        asked.models = ["S"] if asked.data_dir is None or asked.quick else list(MODELS)
    if asked.quick:
        asked.rounds, asked.members = 1, [1, 2]
    torch.set_num_threads(1)
    lines = []
    sys.stdout.write(f"{machine()}, one thread, {asked.rounds} rounds\n\n")
    sys.stdout.write("model  K   times one after the other (range)   examples/s, all members\n")
    for name in asked.models:
        for line in measure(name, asked.members, asked.rounds, Path(asked.data_dir or "data")):
            lines.append(line)
            sys.stdout.write(
                f"{name:5} {line['members']:3}   {line['speedup']:.2f} ({line['lowest']:.2f} to {line['highest']:.2f})"
                f"{line['examples_per_second']:28,.0f}\n"
            )
            sys.stdout.flush()
    if asked.json is not None:
        asked.json.write_text(json.dumps(lines, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

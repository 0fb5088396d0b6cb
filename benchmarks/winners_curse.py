"""How much better a search's winner looks than it is, where all configurations are equally good.

    python benchmarks/winners_curse.py [--sweeps 20] [--trials 50] [--seeds 5]

The space is pure seed noise: one small VAE on the bundled digits, every trial another seed. Each sweep's winner is the
best of its trials; its gap is that score minus the mean of fresh seeds. Its expectation without noise is 0, and with
noise of standard deviation s and N trials about s · E[max of N normals] (Gumbel): both are printed. With R replicates a
trial's score is the mean of R seeds, so s shrinks by √R, and the gap with it. Seeds and means are those of the harness
(``research.worker.replicates``), trials are run in this process, without Ray: a score depends on its seed alone.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import statistics
from pathlib import Path

import numpy as np
import torch

from research.experiments.finalists import fresh_seeds
from research.worker.replicates import seeds_of
from vae.data import Digits, load_training
from vae.likelihoods import Binomial
from vae.networks import Mlp
from vae.optimizers import Adam
from vae.seeds import derive
from vae.train import train
from vae.train_config import TrainConfig

CONFIG = TrainConfig(
    data=Digits(), likelihood=Binomial(), network=Mlp(hidden=(32,)), latent_size=4, optimizer=Adam(lr=3e-3), epochs=3
)


def score(seed: int, cache: dict[str, float]) -> float:
    """The best validation ELBO of the configuration trained with ``seed``."""
    if str(seed) not in cache:
        data = load_training(CONFIG.data, None)
        rows = [result.row for result in train(dataclasses.replace(CONFIG, seed=seed), data)]
        cache[str(seed)] = max(row["val/elbo"] for row in rows)
    return cache[str(seed)]


def gap(sweep: int, trials: int, replicates: int, seeds: int, cache: dict[str, float]) -> float:
    """The winner's score in sweep number ``sweep`` minus the mean of its fresh seeds."""
    scores = [
        statistics.fmean(score(seed, cache) for seed in seeds_of(derive(sweep, "train", trial) % 2**31, replicates))
        for trial in range(trials)
    ]
    return max(scores) - statistics.fmean(score(seed, cache) for seed in fresh_seeds(sweep, seeds))


def main() -> None:
    """Measure and print one Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweeps", type=int, default=20)
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--replicates", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--cache", type=Path, default=Path("runs/winners-curse.json"))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    cache: dict[str, float] = json.loads(asked.cache.read_text()) if asked.cache.exists() else {}
    draws = np.random.default_rng(0).standard_normal((20_000, asked.trials)).max(1).mean()
    rows = []
    for replicates in asked.replicates:
        gaps = [gap(sweep, asked.trials, replicates, asked.seeds, cache) for sweep in range(asked.sweeps)]
        asked.cache.parent.mkdir(exist_ok=True)
        asked.cache.write_text(json.dumps(cache))
        again = np.random.default_rng(0).choice(gaps, (20_000, len(gaps))).mean(1)
        low, high = np.quantile(again, [0.025, 0.975])
        rows.append((replicates, statistics.fmean(gaps), low, high))
    spread = statistics.stdev(cache.values())
    print(f"{asked.sweeps} sweeps of {asked.trials} trials; standard deviation over seeds {spread:.3f} nats\n")
    print("| replicates | mean gap, nats | 95 % interval (bootstrap over sweeps) | s/√R × E[max] |")
    print("|---|---|---|---|")
    for replicates, mean, low, high in rows:
        print(f"| {replicates} | {mean:.3f} | {low:.3f} to {high:.3f} | {spread / math.sqrt(replicates) * draws:.3f} |")


if __name__ == "__main__":
    main()

"""The same trials by Ray Tune alone: OptunaSearch and WandbLoggerCallback, as Ray's manual puts them together.

    python benchmarks/plain_tune.py DIR TRIALS EPOCHS CONCURRENT [without-wandb]

The training function is ours, ``vae.train.train``; it reports a row after each epoch. No checkpoints, no pictures, no
kept models, no ledger: what a person gets who writes the thirty lines. The last line is what it took, as JSON.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

DIRECTORY, TRIALS, EPOCHS, CONCURRENT = sys.argv[1], *map(int, sys.argv[2:5])
WANDB = sys.argv[5:] != ["without-wandb"]
os.environ |= {
    "WANDB_MODE": "offline",
    "WANDB_DIR": DIRECTORY,
    "WANDB_SILENT": "true",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "TUNE_MAX_PENDING_TRIALS_PG": str(CONCURRENT),
}

import ray  # noqa: E402 - the variables come first
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution  # noqa: E402 - the variables come first
from ray import tune  # noqa: E402 - the variables come first
from ray.air.integrations.wandb import WandbLoggerCallback  # noqa: E402 - the variables come first
from ray.tune.search import ConcurrencyLimiter  # noqa: E402 - the variables come first
from ray.tune.search.optuna import OptunaSearch  # noqa: E402 - the variables come first

SPACE = {
    "width": IntDistribution(8, 64),
    "latent_size": IntDistribution(2, 8),
    "lr": FloatDistribution(1e-4, 1e-2, log=True),
    "batch_size": CategoricalDistribution([128, 256]),
    "epochs": IntDistribution(EPOCHS, EPOCHS),
}


def trainable(config: dict[str, Any]) -> None:
    """One trial."""
    import torch

    from vae.data import Digits, load_training
    from vae.likelihoods import Binomial
    from vae.networks import Mlp
    from vae.optimizers import Adam
    from vae.train import train
    from vae.train_config import TrainConfig

    torch.set_num_threads(1)
    made = TrainConfig(
        data=Digits(),
        likelihood=Binomial(),
        network=Mlp(hidden=(config["width"],)),
        latent_size=config["latent_size"],
        optimizer=Adam(lr=config["lr"]),
        batch_size=config["batch_size"],
        epochs=config["epochs"],
    )
    for result in train(made, load_training(made.data, None)):
        tune.report(result.row | {"wall": time.time()})


def main() -> None:
    """The sweep."""
    began = time.time()
    Path(DIRECTORY).mkdir(parents=True, exist_ok=True)
    ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    search = OptunaSearch(space=SPACE, metric="val/elbo", mode="max", seed=0)
    found = tune.Tuner(
        tune.with_resources(trainable, {"cpu": 1}),
        tune_config=tune.TuneConfig(
            search_alg=ConcurrencyLimiter(search, max_concurrent=CONCURRENT),
            num_samples=TRIALS,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name="plain",
            storage_path=DIRECTORY,
            callbacks=[WandbLoggerCallback(project="plain", group="plain")] if WANDB else [],
            verbose=0,
        ),
    ).fit()
    walls = [one.metrics_dataframe["wall"].min() for one in found if one.metrics_dataframe is not None]
    ray.shutdown()
    print(json.dumps({"wall": time.time() - began, "first_row": min(walls) - began, "trials": len(found)}))


if __name__ == "__main__":
    main()

"""Residual VAEs on the handwritten digits (He et al. 2016): depth and width of small convolutional networks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vae.data import Digits
from vae.likelihoods import Binomial
from vae.networks import ResNet
from vae.optimizers import AdamW, Cosine
from vae.train_config import Evaluation, Initialisation, TrainConfig

if TYPE_CHECKING:
    import optuna


def space(trial: optuna.Trial) -> TrainConfig:
    """Network, latent size and optimizer. 8×8 images bear at most four levels; the first keeps their size."""
    first = trial.suggest_categorical("channels", [4, 8])
    levels = trial.suggest_int("levels", 2, 3)
    return TrainConfig(
        data=Digits(),
        likelihood=Binomial(),
        network=ResNet(
            channels=tuple(first * 2**level for level in range(levels)),
            blocks=trial.suggest_int("blocks", 1, 2),
            dense=trial.suggest_categorical("dense", [64, 128]),
            normalisation=trial.suggest_categorical("normalisation", ["none", "batch", "group"]),
        ),
        latent_size=trial.suggest_int("latent_size", 4, 32, log=True),
        optimizer=AdamW(
            lr=trial.suggest_float("lr", 2e-3, 2e-2, log=True),
            weight_decay=trial.suggest_float("weight_decay", 1e-4, 0.1, log=True),
        ),
        schedule=Cosine(warmup_epochs=1.0),
        initialisation=Initialisation(output_bias="data_mean"),
        batch_size=64,
        epochs=18,
        eval=Evaluation(samples=2),
    )

"""Denoising VAEs on the handwritten digits (Im et al. 2017): noise at the encoder's input as a regulariser.

The held-out bound is of clean input, so that kinds and amounts of corruption may be compared by ``val/elbo``;
``val/denoise_error`` is reported beside it and ranks only where the corruption is one for all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vae.corruption import GaussianCorruption, Masking, NoCorruption, SaltAndPepper
from vae.data import Digits
from vae.likelihoods import Binomial
from vae.networks import Mlp
from vae.optimizers import Adam
from vae.train_config import Evaluation, Initialisation, TrainConfig

if TYPE_CHECKING:
    import optuna

    from vae.corruption import CorruptionConfig


def corruption(trial: optuna.Trial) -> CorruptionConfig:
    """Its kind, and how much of it: a fraction of the pixels, or for Gaussian noise a width."""
    match trial.suggest_categorical("corruption", ["none", "gaussian", "masking", "salt_and_pepper"]):
        case "gaussian":
            return GaussianCorruption(std=trial.suggest_float("std", 0.03, 0.5, log=True))
        case "masking":
            return Masking(fraction=trial.suggest_float("fraction", 0.02, 0.5, log=True))
        case "salt_and_pepper":
            return SaltAndPepper(fraction=trial.suggest_float("fraction", 0.02, 0.5, log=True))
        case _:
            return NoCorruption()


def space(trial: optuna.Trial) -> TrainConfig:
    """Corruption, width, latent size and learning rate."""
    return TrainConfig(
        data=Digits(),
        likelihood=Binomial(),
        network=Mlp(hidden=(trial.suggest_int("width", 64, 512, log=True),)),
        latent_size=trial.suggest_int("latent_size", 4, 32, log=True),
        corruption=corruption(trial),
        optimizer=Adam(lr=trial.suggest_float("lr", 3e-4, 1e-2, log=True)),
        initialisation=Initialisation(output_bias="data_mean"),
        epochs=81,
        eval=Evaluation(samples=8),
    )

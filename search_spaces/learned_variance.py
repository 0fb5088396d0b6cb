"""Gaussian pixels and their variance on the dequantised digits (σ-VAE, Rybkin et al. 2021).

A variance that is set by hand weighs reconstruction against KL as 1/β does; one that is learned finds its own place.
A density is unbounded where pixels are constant (Mattei & Frellsen 2018): uniform noise is added to the counts
(Theis et al. 2016), so that ``val/bits_per_dimension`` compares with mass functions on counts, and σ has a floor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vae.data import Digits
from vae.likelihoods import Gaussian
from vae.networks import Mlp
from vae.optimizers import Adam, Cosine
from vae.train_config import Evaluation, Initialisation, TrainConfig

if TYPE_CHECKING:
    import optuna


def likelihood(trial: optuna.Trial) -> Gaussian:
    """Return a Gaussian with a fixed or a learned variance. Only a fixed variance is a parameter of the search."""
    learned = trial.suggest_categorical("learned", ["none", "shared", "per_pixel"])
    variance = trial.suggest_float("variance", 3e-3, 0.3, log=True) if learned == "none" else 0.05
    return Gaussian(learned=learned, variance=variance)


def space(trial: optuna.Trial) -> TrainConfig:
    """Variance, width, latent size and learning rate."""
    return TrainConfig(
        data=Digits(dequantise=True),
        likelihood=likelihood(trial),
        network=Mlp(hidden=(trial.suggest_int("width", 64, 512, log=True),), activation="silu"),
        latent_size=trial.suggest_int("latent_size", 2, 32, log=True),
        optimizer=Adam(lr=trial.suggest_float("lr", 3e-4, 3e-3, log=True)),
        schedule=Cosine(),
        initialisation=Initialisation(output_bias="data_mean"),
        gradient_clip=1000.0,
        epochs=81,
        eval=Evaluation(samples=8),
    )

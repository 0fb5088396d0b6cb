"""Denoising autoencoders on the handwritten digits (Vincent et al. 2008, 2010): the clean image from a corrupted one.

Trials are ranked by ``val/denoise_error``, the squared error on validation images that are corrupted once, alike for
all. So the corruption is one for all; unlike an autoencoder's, the code's size may be searched.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vae.corruption import SaltAndPepper
from vae.data import Digits
from vae.likelihoods import Binomial
from vae.networks import Mlp
from vae.objectives import Reconstruction
from vae.optimizers import Adam, Cosine
from vae.posteriors import Deterministic
from vae.train_config import Initialisation, TrainConfig

if TYPE_CHECKING:
    import optuna


def space(trial: optuna.Trial) -> TrainConfig:
    """Code, network and optimizer against a quarter of the pixels set to black or white."""
    width = trial.suggest_int("width", 64, 512, log=True)
    depth = trial.suggest_int("depth", 1, 2)
    return TrainConfig(
        data=Digits(),
        likelihood=Binomial(),
        network=Mlp(
            hidden=(width,) * depth,
            activation=trial.suggest_categorical("activation", ["relu", "silu"]),
            dropout=trial.suggest_float("dropout", 0.0, 0.3),
        ),
        latent_size=trial.suggest_int("latent_size", 8, 64, log=True),
        posterior=Deterministic(),
        corruption=SaltAndPepper(fraction=0.25),
        objective=Reconstruction(),
        optimizer=Adam(lr=trial.suggest_float("lr", 3e-4, 1e-2, log=True)),
        schedule=Cosine(),
        initialisation=Initialisation(output_bias="data_mean"),
        epochs=81,
    )

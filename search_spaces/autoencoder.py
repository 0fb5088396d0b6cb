"""Autoencoders on the handwritten digits (Hinton & Salakhutdinov 2006): a code without a distribution.

There is no bound to rank by: trials are ranked by ``val/reconstruction``, −log p(x|z) at z = f(x), and with no other
kind of model. The code's size is one for all, because the largest would reconstruct best.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

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
    """Network and optimizer around a code of eight numbers."""
    width = trial.suggest_int("width", 32, 512, log=True)
    depth = trial.suggest_int("depth", 1, 3)
    return TrainConfig(
        data=Digits(),
        likelihood=Binomial(),
        network=Mlp(
            hidden=(width,) * depth,
            activation=trial.suggest_categorical("activation", ["relu", "tanh", "silu"]),
            dropout=trial.suggest_float("dropout", 0.0, 0.3),
        ),
        latent_size=8,
        posterior=Deterministic(),
        objective=Reconstruction(),
        optimizer=Adam(lr=trial.suggest_float("lr", 3e-4, 1e-2, log=True)),
        schedule=Cosine(),
        initialisation=Initialisation(output_bias="data_mean"),
        batch_size=trial.suggest_categorical("batch_size", [32, 64, 128]),
        epochs=81,
    )

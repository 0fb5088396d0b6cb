"""Small MLPs on the handwritten digits: a whole sweep in about two minutes on two cores, and a template for yours."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vae.data import Digits
from vae.likelihoods import Binomial
from vae.networks import Mlp
from vae.optimizers import Adam, Cosine
from vae.train_config import Evaluation, Initialisation, TrainConfig

if TYPE_CHECKING:
    import optuna


def space(trial: optuna.Trial) -> TrainConfig:
    """A VAE with the digits' exact likelihood: pixels are counts 0..16."""
    width = trial.suggest_int("width", 32, 512, log=True)
    depth = trial.suggest_int("depth", 1, 3)
    return TrainConfig(
        data=Digits(),
        likelihood=Binomial(),
        network=Mlp(
            hidden=(width,) * depth,
            activation=trial.suggest_categorical("activation", ["relu", "tanh", "silu"]),
        ),
        latent_size=trial.suggest_int("latent_size", 2, 32, log=True),
        optimizer=Adam(lr=trial.suggest_float("lr", 1e-4, 1e-2, log=True)),
        schedule=Cosine(),
        initialisation=Initialisation(output_bias="data_mean"),
        batch_size=trial.suggest_categorical("batch_size", [32, 64, 128]),
        epochs=81,
        eval=Evaluation(samples=8),
    )

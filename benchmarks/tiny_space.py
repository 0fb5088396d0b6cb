"""A space whose trials take no time: small MLPs on the bundled digits. What is left is the sweep's own cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vae.data import Digits
from vae.likelihoods import Binomial
from vae.networks import Mlp
from vae.optimizers import Adam
from vae.train_config import TrainConfig

if TYPE_CHECKING:
    import optuna


def space(trial: optuna.Trial) -> TrainConfig:
    """One hidden layer, one pass over 1,500 images."""
    return TrainConfig(
        data=Digits(),
        likelihood=Binomial(),
        network=Mlp(hidden=(trial.suggest_int("width", 8, 64),)),
        latent_size=trial.suggest_int("latent_size", 2, 8),
        optimizer=Adam(lr=trial.suggest_float("lr", 1e-4, 1e-2, log=True)),
        batch_size=256,
        epochs=1,
    )

"""Wasserstein autoencoders on the handwritten digits (Tolstikhin et al. 2018): codes that together look like the prior.

The encoder is deterministic, so there is no bound: trials are ranked by ``val/reconstruction``. λ, the kernel and the
code's size are one for all, because reconstruction alone would choose no penalty; how well the codes match the prior
is ``train/mmd``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vae.data import Digits
from vae.likelihoods import Binomial
from vae.networks import Mlp
from vae.objectives import WaeMmd
from vae.optimizers import Adam, Cosine
from vae.posteriors import Deterministic
from vae.train_config import Initialisation, TrainConfig

if TYPE_CHECKING:
    import optuna


def space(trial: optuna.Trial) -> TrainConfig:
    """Network and optimizer, at one λ."""
    width = trial.suggest_int("width", 64, 512, log=True)
    depth = trial.suggest_int("depth", 1, 3)
    return TrainConfig(
        data=Digits(),
        likelihood=Binomial(),
        network=Mlp(
            hidden=(width,) * depth,
            activation=trial.suggest_categorical("activation", ["relu", "tanh", "silu"]),
        ),
        latent_size=8,
        posterior=Deterministic(),
        objective=WaeMmd(weight=100.0),
        optimizer=Adam(lr=trial.suggest_float("lr", 3e-4, 1e-2, log=True)),
        schedule=Cosine(),
        initialisation=Initialisation(output_bias="data_mean"),
        batch_size=128,
        epochs=81,
    )

"""Sparse autoencoders on the handwritten digits (Ng 2011, CS294A notes): a wide code of which little is active at once.

Trials are ranked by ``val/reconstruction``. How sparse the code must be (ρ, and the penalty's weight) is one for all:
reconstruction alone would always choose no penalty. Change them here and sweep again to compare.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vae.data import Digits
from vae.likelihoods import Binomial
from vae.networks import Mlp
from vae.objectives import KlToRho, Reconstruction
from vae.optimizers import Adam
from vae.posteriors import Deterministic
from vae.train_config import Initialisation, TrainConfig

if TYPE_CHECKING:
    import optuna


def space(trial: optuna.Trial) -> TrainConfig:
    """Network and optimizer around a code of 128 numbers in (0, 1), twice as many as pixels."""
    width = trial.suggest_int("width", 64, 512, log=True)
    depth = trial.suggest_int("depth", 1, 2)
    return TrainConfig(
        data=Digits(),
        likelihood=Binomial(),
        network=Mlp(hidden=(width,) * depth, dropout=trial.suggest_float("dropout", 0.0, 0.3)),
        latent_size=128,
        posterior=Deterministic(activation="sigmoid"),
        objective=Reconstruction(sparsity=KlToRho(weight=1.0, rho=0.05)),
        optimizer=Adam(lr=trial.suggest_float("lr", 3e-4, 1e-2, log=True)),
        initialisation=Initialisation(
            weights=trial.suggest_categorical("weights", ["pytorch", "xavier_uniform"]), output_bias="data_mean"
        ),
        # ρ is compared with the batch's mean activity, so the batch's size is part of the penalty.
        batch_size=trial.suggest_categorical("batch_size", [64, 128, 256]),
        epochs=81,
    )

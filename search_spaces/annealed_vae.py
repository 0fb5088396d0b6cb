"""Capacity-annealed VAEs on the handwritten digits (Burgess et al. 2018): the KL is led to a target that grows.

Trials are ranked by the ELBO at β = 1, whatever target trained them: the best is where the target meets the KL that
the data are worth. No trial is stopped before the longest annealing is over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vae.data import Digits
from vae.likelihoods import Binomial
from vae.networks import Mlp
from vae.objectives import Capacity
from vae.optimizers import Adam
from vae.train_config import Evaluation, Initialisation, TrainConfig

if TYPE_CHECKING:
    import optuna


def space(trial: optuna.Trial) -> TrainConfig:
    """Target, strength and length of the annealing, latent size and learning rate on a fixed network."""
    return TrainConfig(
        data=Digits(),
        likelihood=Binomial(),
        network=Mlp(hidden=(256,)),
        latent_size=trial.suggest_int("latent_size", 4, 32, log=True),
        objective=Capacity(
            gamma=trial.suggest_float("gamma", 1.0, 100.0, log=True),
            capacity=trial.suggest_float("capacity", 2.0, 40.0),
            epochs=trial.suggest_float("annealing_epochs", 3.0, 27.0),
        ),
        optimizer=Adam(lr=trial.suggest_float("lr", 3e-4, 1e-2, log=True)),
        initialisation=Initialisation(output_bias="data_mean"),
        epochs=81,
        eval=Evaluation(samples=8),
    )

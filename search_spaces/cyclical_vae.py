"""VAEs with a cyclical β on the handwritten digits (Fu et al. 2019): the KL's weight rises from 0 again and again.

Trials compare at cycle ends alone. With 81 epochs and 3, 9 or 27 cycles the longest cycle has 27 epochs, where every
other cycle ends too: the one rung at which trials are stopped. Other numbers need ``--scheduler none``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vae.data import Digits
from vae.likelihoods import Binomial
from vae.networks import Mlp
from vae.objectives import Cyclical, Elbo
from vae.optimizers import Adam
from vae.train_config import Evaluation, Initialisation, TrainConfig

if TYPE_CHECKING:
    import optuna


def space(trial: optuna.Trial) -> TrainConfig:
    """Cycles and their ramp, β, latent size and learning rate on a fixed network."""
    schedule = Cyclical(
        cycles=trial.suggest_categorical("cycles", [3, 9, 27]), ramp=trial.suggest_float("ramp", 0.25, 1.0)
    )
    return TrainConfig(
        data=Digits(),
        likelihood=Binomial(),
        network=Mlp(hidden=(256,)),
        latent_size=trial.suggest_int("latent_size", 4, 32, log=True),
        objective=Elbo(beta=trial.suggest_float("beta", 0.5, 2.0, log=True), beta_schedule=schedule),
        optimizer=Adam(lr=trial.suggest_float("lr", 3e-4, 1e-2, log=True)),
        initialisation=Initialisation(output_bias="data_mean"),
        epochs=81,
        eval=Evaluation(samples=8),
    )

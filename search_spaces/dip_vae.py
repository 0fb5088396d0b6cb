"""DIP-VAEs on the handwritten digits (Kumar et al. 2018): the codes' covariance is pulled to the identity.

Trials are ranked by the ELBO, without the penalty. As in Locatello et al. 2019 one λ is searched: λ_d is ten times
λ_od in version I, and equal to it in version II.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vae.data import Digits
from vae.likelihoods import Binomial
from vae.networks import Mlp
from vae.objectives import DipVae
from vae.optimizers import Adam
from vae.train_config import Evaluation, Initialisation, TrainConfig

if TYPE_CHECKING:
    import optuna


def space(trial: optuna.Trial) -> TrainConfig:
    """Version and strength, latent size, learning rate and batch size on a fixed network."""
    version = trial.suggest_categorical("version", ["I", "II"])
    off_diagonal = trial.suggest_float("off_diagonal", 0.1, 50.0, log=True)
    return TrainConfig(
        data=Digits(),
        likelihood=Binomial(),
        network=Mlp(hidden=(256,)),
        latent_size=trial.suggest_int("latent_size", 4, 16, log=True),
        objective=DipVae(
            version=version, off_diagonal=off_diagonal, diagonal=(10 if version == "I" else 1) * off_diagonal
        ),
        optimizer=Adam(lr=trial.suggest_float("lr", 3e-4, 1e-2, log=True)),
        initialisation=Initialisation(output_bias="data_mean"),
        # The covariance is the batch's.
        batch_size=trial.suggest_categorical("batch_size", [64, 128, 256]),
        epochs=81,
        eval=Evaluation(samples=8),
    )

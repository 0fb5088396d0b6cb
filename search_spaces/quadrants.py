"""Completing digits from their bottom left quarter (Sohn et al. 2015, section 5.2): p(unseen | seen).

Only the 48 pixels that are not seen are scored; the measure says so, and what is seen is one for all trials.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vae.conditioning import OnQuadrants
from vae.data import Digits
from vae.likelihoods import Binomial
from vae.networks import Mlp
from vae.optimizers import Adam, Cosine
from vae.train_config import Evaluation, Initialisation, TrainConfig

if TYPE_CHECKING:
    import optuna


def space(trial: optuna.Trial) -> TrainConfig:
    """Network, latent size and optimizer. Little is left to say: few latents will do."""
    width = trial.suggest_int("width", 64, 512, log=True)
    depth = trial.suggest_int("depth", 1, 3)
    return TrainConfig(
        data=Digits(),
        likelihood=Binomial(),
        network=Mlp(
            hidden=(width,) * depth,
            activation=trial.suggest_categorical("activation", ["relu", "tanh", "silu"]),
            dropout=trial.suggest_float("dropout", 0.0, 0.3),
        ),
        conditioning=OnQuadrants(observed=("bottom_left",)),
        latent_size=trial.suggest_int("latent_size", 2, 16, log=True),
        optimizer=Adam(lr=trial.suggest_float("lr", 3e-4, 1e-2, log=True)),
        schedule=Cosine(),
        initialisation=Initialisation(output_bias="data_mean"),
        batch_size=trial.suggest_categorical("batch_size", [32, 64, 128]),
        epochs=81,
        eval=Evaluation(samples=8),
    )

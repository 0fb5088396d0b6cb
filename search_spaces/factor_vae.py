"""FactorVAEs on the handwritten digits (Kim & Mnih 2018): total correlation, estimated by a network in training.

γ is swept, so trials are ranked by the ELBO, without the penalty. The discriminator is smaller than the paper's
1000 × 5, as the data are; its size and learning rate are searched.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vae.data import Digits
from vae.likelihoods import Binomial
from vae.networks import Mlp
from vae.objectives import FactorVae
from vae.optimizers import Adam
from vae.train_config import Evaluation, Initialisation, TrainConfig

if TYPE_CHECKING:
    import optuna


def space(trial: optuna.Trial) -> TrainConfig:
    """γ, the discriminator, latent size and learning rate on a fixed network."""
    width = trial.suggest_int("discriminator_width", 32, 128, log=True)
    depth = trial.suggest_int("discriminator_depth", 1, 3)
    adversary = Adam(lr=trial.suggest_float("discriminator_lr", 1e-4, 3e-3, log=True), betas=(0.5, 0.9))
    return TrainConfig(
        data=Digits(),
        likelihood=Binomial(),
        network=Mlp(hidden=(256,)),
        latent_size=trial.suggest_int("latent_size", 4, 16, log=True),
        objective=FactorVae(
            gamma=trial.suggest_float("gamma", 1.0, 40.0, log=True), hidden=(width,) * depth, optimizer=adversary
        ),
        optimizer=Adam(lr=trial.suggest_float("lr", 3e-4, 3e-3, log=True)),
        initialisation=Initialisation(output_bias="data_mean"),
        batch_size=64,
        epochs=81,
        eval=Evaluation(samples=8),
    )

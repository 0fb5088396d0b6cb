"""β-TCVAEs on the handwritten digits (Chen et al. 2018): only what the code's dimensions share weighs β.

β is swept, so trials are ranked by the ELBO at β = 1. Digits have no known factors of variation: what the space
shows is the price of independent dimensions in nats, ``train/total_correlation`` against ``val/elbo``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vae.data import Digits
from vae.likelihoods import Binomial
from vae.networks import Mlp
from vae.objectives import BetaTcvae
from vae.optimizers import Adam
from vae.train_config import Evaluation, Initialisation, TrainConfig

if TYPE_CHECKING:
    import optuna


def space(trial: optuna.Trial) -> TrainConfig:
    """β and how log q(z) is estimated, latent size, learning rate and batch size on a fixed network."""
    return TrainConfig(
        data=Digits(),
        likelihood=Binomial(),
        network=Mlp(hidden=(256,)),
        latent_size=trial.suggest_int("latent_size", 4, 16, log=True),
        objective=BetaTcvae(
            beta=trial.suggest_float("beta", 0.5, 10.0, log=True),
            estimator=trial.suggest_categorical("estimator", ["weighted", "stratified"]),
        ),
        optimizer=Adam(lr=trial.suggest_float("lr", 3e-4, 1e-2, log=True)),
        initialisation=Initialisation(output_bias="data_mean"),
        # log q(z) is estimated from a batch: a small one biases it.
        batch_size=trial.suggest_categorical("batch_size", [64, 128]),
        epochs=54,
        eval=Evaluation(samples=8),
    )

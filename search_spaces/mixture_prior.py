"""VAEs with a learned mixture prior on the handwritten digits (Dilokthanakul et al. 2016; Tomczak & Welling 2018).

The KL to a mixture has no closed form: rows say ``kl_estimate: monte_carlo`` with its standard error, and several
samples are drawn of each validation image so that it does not decide the ranking.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vae.data import Digits
from vae.likelihoods import Binomial
from vae.networks import Mlp
from vae.optimizers import Adam, Cosine
from vae.priors import Mixture
from vae.train_config import Evaluation, Initialisation, TrainConfig

if TYPE_CHECKING:
    import optuna


def space(trial: optuna.Trial) -> TrainConfig:
    """Components, network, latent size and optimizer."""
    width = trial.suggest_int("width", 64, 256, log=True)
    depth = trial.suggest_int("depth", 1, 2)
    return TrainConfig(
        data=Digits(),
        likelihood=Binomial(),
        network=Mlp(
            hidden=(width,) * depth,
            activation=trial.suggest_categorical("activation", ["relu", "tanh", "silu"]),
        ),
        latent_size=trial.suggest_int("latent_size", 2, 32, log=True),
        prior=Mixture(components=trial.suggest_int("components", 2, 30, log=True)),
        optimizer=Adam(lr=trial.suggest_float("lr", 3e-4, 1e-2, log=True)),
        schedule=Cosine(),
        initialisation=Initialisation(output_bias="data_mean"),
        epochs=54,
        eval=Evaluation(samples=8),
    )

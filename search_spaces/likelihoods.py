"""Three likelihoods of a pixel on the handwritten digits: binomial, categorical or discretised logistic.

All three are mass functions on the counts 0..16, so they share one measure and rank by ``val/elbo``: what the others
gain over the binomial (the exact likelihood of 16 independent dots, Salimans et al. 2017 and van den Oord et al. 2016
for the others) is how far the dots of a cell are from independent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vae.data import Digits
from vae.likelihoods import Binomial, Categorical, DiscretisedLogistic
from vae.networks import Mlp
from vae.optimizers import Adam, Cosine
from vae.train_config import Evaluation, Initialisation, TrainConfig

if TYPE_CHECKING:
    import optuna

LIKELIHOODS = {
    "binomial": Binomial(),
    "categorical": Categorical(),
    "discretised_logistic": DiscretisedLogistic(),
}


def space(trial: optuna.Trial) -> TrainConfig:
    """Likelihood, network, latent size and learning rate."""
    width = trial.suggest_int("width", 64, 256, log=True)
    depth = trial.suggest_int("depth", 1, 2)
    return TrainConfig(
        data=Digits(),
        likelihood=LIKELIHOODS[trial.suggest_categorical("likelihood", list(LIKELIHOODS))],
        network=Mlp(hidden=(width,) * depth, dropout=trial.suggest_float("dropout", 0.0, 0.3)),
        latent_size=trial.suggest_int("latent_size", 2, 32, log=True),
        optimizer=Adam(lr=trial.suggest_float("lr", 1e-3, 1e-2, log=True)),
        schedule=Cosine(),
        initialisation=Initialisation(output_bias="data_mean"),
        epochs=27,
        eval=Evaluation(samples=8),
    )

"""VAEs with a VampPrior on the binarised digits (Tomczak & Welling 2018): the posterior of learned pseudo-inputs.

The KL is estimated, as for any mixture: rows say so, with its standard error. β is warmed up as in the paper; no trial
is stopped before the longest warm-up is over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vae.data import Digits
from vae.likelihoods import Bernoulli
from vae.networks import Mlp
from vae.objectives import Elbo, LinearWarmup
from vae.optimizers import Adam
from vae.priors import Vamp
from vae.train_config import Evaluation, Initialisation, TrainConfig

if TYPE_CHECKING:
    import optuna


def space(trial: optuna.Trial) -> TrainConfig:
    """Pseudo-inputs, warm-up, network, latent size and learning rate."""
    width = trial.suggest_int("width", 64, 256, log=True)
    depth = trial.suggest_int("depth", 1, 2)
    return TrainConfig(
        data=Digits(binarisation="static"),
        likelihood=Bernoulli(),
        network=Mlp(hidden=(width,) * depth),
        latent_size=trial.suggest_int("latent_size", 2, 32, log=True),
        prior=Vamp(components=trial.suggest_int("components", 10, 200, log=True)),
        objective=Elbo(beta_schedule=LinearWarmup(epochs=trial.suggest_float("warmup_epochs", 0.5, 9.0))),
        optimizer=Adam(lr=trial.suggest_float("lr", 3e-4, 3e-3, log=True)),
        initialisation=Initialisation(weights="xavier_uniform", output_bias="data_mean"),
        epochs=54,
        eval=Evaluation(samples=16),
    )

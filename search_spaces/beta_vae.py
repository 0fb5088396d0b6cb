"""β-VAEs on MNIST (Higgins et al. 2017): how the KL is weighed, warmed up and allowed for.

β is swept, so trials are ranked by the ELBO at β = 1, whatever β trained them; ``val/kl`` or
``val/reconstruction`` alone would only find the smallest or largest β and are refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vae.data import Mnist
from vae.likelihoods import Bernoulli
from vae.networks import Mlp
from vae.objectives import ConstantBeta, Elbo, LinearWarmup
from vae.optimizers import Adam
from vae.train_config import Initialisation, TrainConfig

if TYPE_CHECKING:
    import optuna


def objective(trial: optuna.Trial) -> Elbo:
    """β, and how it gets there: a warm-up has a length only where there is one."""
    schedule: ConstantBeta | LinearWarmup = ConstantBeta()
    if trial.suggest_categorical("beta_schedule", ["constant", "linear_warmup"]) == "linear_warmup":
        schedule = LinearWarmup(epochs=trial.suggest_float("warmup_epochs", 0.25, 1.0))
    return Elbo(
        beta=trial.suggest_float("beta", 0.25, 8.0, log=True),
        beta_schedule=schedule,
        free_bits=trial.suggest_categorical("free_bits", [0.0, 0.05, 0.1]),
    )


def space(trial: optuna.Trial) -> TrainConfig:
    """Objective, latent size and learning rate on a fixed network: what β does is not mixed with what width does."""
    return TrainConfig(
        data=Mnist(binarisation="dynamic"),
        likelihood=Bernoulli(),
        network=Mlp(hidden=(400,)),
        latent_size=trial.suggest_int("latent_size", 4, 40, log=True),
        objective=objective(trial),
        optimizer=Adam(lr=trial.suggest_float("lr", 3e-4, 3e-3, log=True)),
        initialisation=Initialisation(output_bias="data_mean"),
        batch_size=128,
        epochs=30,
    )

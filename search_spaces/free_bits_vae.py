"""VAEs with free bits on the handwritten digits (Kingma et al. 2016): each dimension may cost λ nats for nothing.

What is free in training is counted in the score: ``val/elbo`` has the whole KL. So a λ that is too large loses, and
one that keeps dimensions from collapsing early may win.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vae.data import Digits
from vae.likelihoods import Binomial
from vae.networks import Mlp
from vae.objectives import ConstantBeta, CosineWarmup, Elbo
from vae.optimizers import Adam
from vae.train_config import Evaluation, Initialisation, TrainConfig

if TYPE_CHECKING:
    import optuna


def space(trial: optuna.Trial) -> TrainConfig:
    """λ beside a warm-up, the other cure for early collapse; network, latent size and learning rate."""
    schedule: ConstantBeta | CosineWarmup = ConstantBeta()
    if trial.suggest_categorical("warmup", [False, True]):
        schedule = CosineWarmup(epochs=trial.suggest_float("warmup_epochs", 1.0, 9.0))
    return TrainConfig(
        data=Digits(),
        likelihood=Binomial(),
        network=Mlp(hidden=(trial.suggest_int("width", 64, 512, log=True),) * trial.suggest_int("depth", 1, 2)),
        latent_size=trial.suggest_int("latent_size", 4, 32, log=True),
        objective=Elbo(free_bits=trial.suggest_float("free_bits", 0.01, 1.0, log=True), beta_schedule=schedule),
        optimizer=Adam(lr=trial.suggest_float("lr", 3e-4, 1e-2, log=True)),
        initialisation=Initialisation(output_bias="data_mean"),
        epochs=81,
        eval=Evaluation(samples=8),
    )

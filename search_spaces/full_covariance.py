"""VAEs with a full-covariance posterior on the handwritten digits (Kingma & Welling 2019, section 2.5.2).

One family for all trials, so the ELBO orders them. Beside a diagonal posterior it would not: a richer family is a
tighter bound, not a better model, and such a space is ranked by ``val/nll_iwae``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vae.data import Digits
from vae.likelihoods import Binomial
from vae.networks import Mlp
from vae.optimizers import Adam, Cosine
from vae.posteriors import FullCovariance
from vae.train_config import Evaluation, Initialisation, TrainConfig

if TYPE_CHECKING:
    import optuna


def space(trial: optuna.Trial) -> TrainConfig:
    """Network, latent size and optimizer. The encoder's outputs grow with the square of the latent size."""
    width = trial.suggest_int("width", 64, 256, log=True)
    depth = trial.suggest_int("depth", 1, 2)
    return TrainConfig(
        data=Digits(),
        likelihood=Binomial(),
        network=Mlp(
            hidden=(width,) * depth,
            activation=trial.suggest_categorical("activation", ["relu", "tanh", "silu"]),
        ),
        latent_size=trial.suggest_int("latent_size", 2, 16, log=True),
        posterior=FullCovariance(),
        optimizer=Adam(lr=trial.suggest_float("lr", 3e-4, 3e-3, log=True)),
        schedule=Cosine(),
        initialisation=Initialisation(output_bias="data_mean"),
        gradient_clip=trial.suggest_float("gradient_clip", 10.0, 1000.0, log=True),
        epochs=54,
        eval=Evaluation(samples=8),
    )

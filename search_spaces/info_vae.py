"""InfoVAEs on the handwritten digits (Zhao et al. 2019): part of the KL replaced by the aggregate posterior's MMD.

α = 0 and λ = 1 is the VAE; α near 1 leaves the single posteriors almost free. Trials are ranked by the ELBO, which
holds that against them: read ``train/mmd`` and ``val/active_units`` beside it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vae.data import Digits
from vae.likelihoods import Binomial
from vae.networks import Mlp
from vae.objectives import InfoVae
from vae.optimizers import Adam
from vae.train_config import Evaluation, Initialisation, TrainConfig

if TYPE_CHECKING:
    import optuna


def space(trial: optuna.Trial) -> TrainConfig:
    """α, λ and the kernel, latent size, learning rate and batch size on a fixed network."""
    return TrainConfig(
        data=Digits(),
        likelihood=Binomial(),
        network=Mlp(hidden=(256,)),
        latent_size=trial.suggest_int("latent_size", 2, 16, log=True),
        objective=InfoVae(
            alpha=trial.suggest_float("alpha", 0.0, 0.9),
            # From 1 on: α + λ − 1, the MMD's weight, must not be negative.
            weight=trial.suggest_float("weight", 1.0, 1000.0, log=True),
            kernel=trial.suggest_categorical("kernel", ["rbf", "imq"]),
        ),
        optimizer=Adam(lr=trial.suggest_float("lr", 3e-4, 1e-2, log=True)),
        initialisation=Initialisation(output_bias="data_mean"),
        batch_size=trial.suggest_categorical("batch_size", [64, 128, 256]),
        epochs=81,
        eval=Evaluation(samples=8),
    )

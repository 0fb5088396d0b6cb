"""Importance-weighted autoencoders on the binarised digits (Burda et al. 2016).

k weights tighten another bound than the ELBO, which would rank them the wrong way round. Trials are ranked by
``val/nll_iwae`` at one k for all, whatever k trained them; k = 1 is the VAE.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vae.data import Digits
from vae.likelihoods import Bernoulli
from vae.networks import Mlp
from vae.objectives import Iwae
from vae.optimizers import Adam
from vae.train_config import Evaluation, Initialisation, TrainConfig

if TYPE_CHECKING:
    import optuna


def space(trial: optuna.Trial) -> TrainConfig:
    """Samples and gradient estimate, network, latent size and learning rate."""
    width = trial.suggest_int("width", 64, 256, log=True)
    return TrainConfig(
        data=Digits(binarisation="static"),
        likelihood=Bernoulli(),
        network=Mlp(hidden=(width,) * trial.suggest_int("depth", 1, 2), activation="tanh"),
        latent_size=trial.suggest_int("latent_size", 4, 32, log=True),
        objective=Iwae(
            k=trial.suggest_categorical("k", [1, 5, 20]),
            doubly_reparameterised=trial.suggest_categorical("doubly_reparameterised", [False, True]),
        ),
        optimizer=Adam(lr=trial.suggest_float("lr", 3e-4, 3e-3, log=True), eps=1e-4),
        initialisation=Initialisation(weights="xavier_uniform", output_bias="data_mean"),
        batch_size=64,
        epochs=27,
        eval=Evaluation(nll_k=100),
    )

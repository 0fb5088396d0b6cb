"""VAEs on MNIST, binarised anew at every pass (Burda et al. 2016): MLP or convolutional, scored by their ELBO."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vae.data import Mnist
from vae.likelihoods import Bernoulli
from vae.networks import Conv, Mlp
from vae.optimizers import Adam, Cosine
from vae.train_config import Initialisation, TrainConfig

if TYPE_CHECKING:
    import optuna

    from vae.networks import NetworkConfig


def network(trial: optuna.Trial) -> NetworkConfig:
    """Width and depth belong to the MLP, channels to the convolutional network: each is asked for only with its own."""
    if trial.suggest_categorical("network", ["mlp", "conv"]) == "mlp":
        width = trial.suggest_int("width", 128, 1024, log=True)
        depth = trial.suggest_int("depth", 1, 3)
        return Mlp(hidden=(width,) * depth, dropout=trial.suggest_float("dropout", 0.0, 0.3))
    first = trial.suggest_categorical("channels", [8, 16, 32])
    return Conv(channels=(first, 2 * first), dense=trial.suggest_categorical("dense", [128, 256]))


def space(trial: optuna.Trial) -> TrainConfig:
    """Network, latent size and optimizer of a plain VAE."""
    return TrainConfig(
        data=Mnist(binarisation="dynamic"),
        likelihood=Bernoulli(),
        network=network(trial),
        latent_size=trial.suggest_int("latent_size", 8, 64, log=True),
        optimizer=Adam(lr=trial.suggest_float("lr", 1e-4, 3e-3, log=True), eps=1e-4),
        schedule=Cosine(final=0.05),
        initialisation=Initialisation(weights="xavier_uniform", output_bias="data_mean"),
        batch_size=trial.suggest_categorical("batch_size", [64, 128, 256]),
        epochs=50,
    )

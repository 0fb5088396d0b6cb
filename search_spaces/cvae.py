"""Conditional VAEs on MNIST (Sohn et al. 2015): the label in encoder and decoder, with or without a learned p(z|y).

The scores bound log p(x|y). They are no VAE's: up to H(y) = 2.30 nats are given, not learned
(``research evaluate --nll`` reports p(x) with the label summed out). ``val/samples_as_asked`` is the share of prior
samples that a classifier takes for the label asked for; few latents make it high, many make the bound tight:

    research sweep cvae --constraint 'val/samples_as_asked>=0.95' --scheduler none
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vae.conditioning import OnLabel
from vae.data import Mnist
from vae.likelihoods import Bernoulli
from vae.networks import Mlp
from vae.optimizers import Adam
from vae.priors import LabelConditional, StandardNormal
from vae.train_config import Evaluation, Initialisation, TrainConfig

if TYPE_CHECKING:
    import optuna


def space(trial: optuna.Trial) -> TrainConfig:
    """Return a CVAE: the search chooses where the label enters, the prior, the network and the optimizer."""
    width = trial.suggest_int("width", 128, 512, log=True)
    depth = trial.suggest_int("depth", 1, 2)
    learned_prior = trial.suggest_categorical("prior", ["standard_normal", "label_conditional"]) == "label_conditional"
    return TrainConfig(
        data=Mnist(binarisation="dynamic"),
        likelihood=Bernoulli(),
        network=Mlp(hidden=(width,) * depth),
        conditioning=OnLabel(at=trial.suggest_categorical("label_at", ["input", "every_layer"])),
        prior=LabelConditional() if learned_prior else StandardNormal(),
        latent_size=trial.suggest_int("latent_size", 2, 40, log=True),
        optimizer=Adam(lr=trial.suggest_float("lr", 3e-4, 3e-3, log=True)),
        initialisation=Initialisation(output_bias="data_mean"),
        batch_size=trial.suggest_categorical("batch_size", [64, 128, 256]),
        epochs=30,
        eval=Evaluation(classified_samples=10_000),
    )

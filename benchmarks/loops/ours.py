"""vae.train.train: one epoch a block, on data of which nothing is held out, so that no evaluation is in it.

``steps_wall`` is the time of its training steps alone, as its own row reports it; the block's wall time has
everything that an epoch does: copying the state that a resume needs, the checks for divergence, the row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from layers import MODELS
from protocol import serve

from vae.data import Mnist, TrainingData
from vae.data.dataset import make_split
from vae.likelihoods import Bernoulli
from vae.networks import Conv, Mlp
from vae.optimizers import Adam
from vae.train import build as build_model
from vae.train import train
from vae.train_config import TrainConfig

if TYPE_CHECKING:
    from layers import Model
    from protocol import Block
    from torch import Tensor


def config_of(model: Model) -> TrainConfig:
    """The same model as a configuration."""
    network: Conv | Mlp
    if model.channels:
        network = Conv(channels=model.channels, kernel=4, dense=model.hidden[0], activation=model.activation)
    else:
        network = Mlp(hidden=model.hidden, activation=model.activation)
    return TrainConfig(
        data=Mnist(validation=0, binarisation="expected"),
        network=network,
        latent_size=model.latent,
        likelihood=Bernoulli(),
        optimizer=Adam(lr=model.lr, eps=model.eps),
        batch_size=model.batch,
        epochs=1_000_000,
    )


def build(name: str, images: Tensor) -> tuple[Block, dict[str, Any]]:
    """The program's loop over all ``images``."""
    config = config_of(MODELS[name])
    data = TrainingData(
        train=make_split("train", images.unsqueeze(1), torch.zeros(len(images), dtype=torch.int64)),
        validation=None,
        levels=255,
        num_classes=10,
        data_hash="benchmark",
        split_hash="benchmark",
    )
    epochs = train(config, data)

    def block() -> dict[str, float]:
        row = next(epochs).row
        return {"loss": row["train/loss"], "steps_wall": row["time/train_seconds"]}

    return block, {"parameters": sum(p.numel() for p in build_model(config, data).parameters())}


if __name__ == "__main__":
    serve(build)

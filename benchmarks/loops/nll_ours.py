"""vae.evaluate.importance_weighted_nll on given weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from layers import MODELS, network_of
from protocol import serve

from vae.data import Mnist, TrainingData
from vae.data.dataset import make_split
from vae.data.pixels import pixels_of
from vae.evaluate import importance_weighted_nll
from vae.likelihoods import Bernoulli
from vae.networks import Mlp
from vae.train import build as build_model
from vae.train_config import TrainConfig

if TYPE_CHECKING:
    from protocol import Block
    from torch import Tensor

K = 5000


def build(name: str, images: Tensor, weights: str) -> tuple[Block, dict[str, Any]]:
    """The estimate over all ``images``, which are 0 or 255."""
    layers = MODELS[name]
    network = network_of(layers, weights)
    config = TrainConfig(
        data=Mnist(validation=0, binarisation="static"),
        network=Mlp(hidden=layers.hidden, activation=layers.activation),
        latent_size=layers.latent,
        likelihood=Bernoulli(),
    )
    split = make_split("train", images.unsqueeze(1), torch.zeros(len(images), dtype=torch.int64))
    data = TrainingData(
        train=split, validation=None, levels=255, num_classes=10, data_hash="benchmark", split_hash="benchmark"
    )
    model = build_model(config, data)
    with torch.no_grad():
        for own, given in zip(model.parameters(), network.parameters(), strict=True):
            own.copy_(given)
    pixels = pixels_of(split, config, data.levels, torch.device("cpu"), held_out=True)

    def block() -> dict[str, float]:
        return {"nll": importance_weighted_nll(model, pixels, k=K, images=len(images), seed=0, split="test").nll}

    return block, {"parameters": sum(p.numel() for p in model.parameters())}


if __name__ == "__main__":
    serve(build)

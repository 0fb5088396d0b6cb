"""pythae's ``VAE.get_nll`` on given weights."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import torch
from layers import MODELS, network_of
from protocol import serve
from pythae.models import VAE, VAEConfig
from pythae_trainer import Decoder, Encoder

if TYPE_CHECKING:
    from protocol import Block
    from torch import Tensor

K = 5000


def build(name: str, images: Tensor, weights: str) -> tuple[Block, dict[str, Any]]:
    """The estimate over all ``images``, which are 0 or 255; pythae's own block of 100 samples."""
    layers = MODELS[name]
    network = network_of(layers, weights)
    config = VAEConfig(input_dim=(1, 28, 28), latent_dim=layers.latent, reconstruction_loss="bce")
    model = VAE(config, encoder=Encoder(layers), decoder=Decoder(layers)).eval()
    model.encoder.layers.load_state_dict(network.encoder.state_dict())
    model.decoder.layers.load_state_dict(network.decoder.state_dict())
    x = images.unsqueeze(1).float() / 255

    @torch.no_grad()
    def block() -> dict[str, float]:
        return {"nll": -float(model.get_nll(x, n_samples=K, batch_size=100))}

    return block, {"parameters": sum(p.numel() for p in model.parameters()), "pythae": version("pythae")}


if __name__ == "__main__":
    serve(build)

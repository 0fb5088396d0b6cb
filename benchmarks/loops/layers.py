"""The models that every loop trains: the same layers, batch size and optimizer settings in each."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

PIXELS = 28 * 28


@dataclass(frozen=True)
class Model:
    """What is trained, and how many examples one block of a round holds (a multiple of the batch size)."""

    description: str
    hidden: tuple[int, ...]  # dense layers of the encoder; the decoder mirrors them
    channels: tuple[int, ...]  # stride-2 convolutions before them, kernel 4
    latent: int
    activation: str
    batch: int
    samples: int
    eps: float = 1e-8
    lr: float = 1e-3


MODELS = {
    "M1": Model("784-400-20, ReLU", (400,), (), 20, "relu", batch=128, samples=6400),
    "M2": Model("784-200-200-50, tanh", (200, 200), (), 50, "tanh", batch=100, samples=6000, eps=1e-4),
    "M3": Model("conv 32-64 (4x4, stride 2), 256-10, ReLU", (256,), (32, 64), 10, "relu", batch=128, samples=2560),
}


def _activation(model: Model) -> nn.Module:
    return nn.Tanh() if model.activation == "tanh" else nn.ReLU()


def encoder_layers(model: Model) -> nn.Sequential:
    """[B, 784] -> [B, 2 x latent]: mean and log-variance side by side."""
    layers: list[nn.Module] = []
    size, width = 28, PIXELS
    if model.channels:
        layers.append(nn.Unflatten(1, (1, size, size)))
        for before, after in zip((1, *model.channels), model.channels, strict=False):
            layers += [nn.Conv2d(before, after, 4, stride=2, padding=1), _activation(model)]
            size //= 2
        layers.append(nn.Flatten())
        width = model.channels[-1] * size * size
    for after in model.hidden:
        layers += [nn.Linear(width, after), _activation(model)]
        width = after
    return nn.Sequential(*layers, nn.Linear(width, 2 * model.latent))


def decoder_layers(model: Model) -> nn.Sequential:
    """[B, latent] -> [B, 784] logits."""
    layers: list[nn.Module] = []
    width = model.latent
    for after in reversed(model.hidden):
        layers += [nn.Linear(width, after), _activation(model)]
        width = after
    if not model.channels:
        return nn.Sequential(*layers, nn.Linear(width, PIXELS))
    size = 28 // 2 ** len(model.channels)
    layers += [nn.Linear(width, model.channels[-1] * size * size), _activation(model)]
    layers.append(nn.Unflatten(1, (model.channels[-1], size, size)))
    outputs = (*reversed(model.channels[:-1]), 1)
    for index, (before, after) in enumerate(zip(reversed(model.channels), outputs, strict=True)):
        layers.append(nn.ConvTranspose2d(before, after, 4, stride=2, padding=1))
        if index < len(outputs) - 1:
            layers.append(_activation(model))
    return nn.Sequential(*layers, nn.Flatten())


class Vae(nn.Module):
    """Mean, log-variance and logits, for the loops that have no model class of their own."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.encoder = encoder_layers(model)
        self.decoder = decoder_layers(model)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x [B, 784] -> mean [B, L], log-variance [B, L], logits [B, 784]."""
        mean, log_variance = self.encoder(x).chunk(2, dim=1)
        z = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
        return mean, log_variance, self.decoder(z)


def network_of(model: Model, weights: str) -> Vae:
    """A model with the weights that lie in the file ``weights``."""
    network = Vae(model)
    network.load_state_dict(torch.load(weights))
    return network


def flops_per_sample(model: Model) -> float:
    """Floating-point operations of matrix products and convolutions in one training step, for each example.

    Forward once and backward twice, less the first layer's gradient by its input, which nobody computes.
    """
    forward: list[float] = []

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if isinstance(module, nn.Linear):
            forward.append(2.0 * module.weight.numel())
        elif isinstance(module, nn.Conv2d):
            forward.append(2.0 * module.weight.numel() * output[0, 0].numel())
        elif isinstance(module, nn.ConvTranspose2d):
            forward.append(2.0 * module.weight.numel() * inputs[0][0, 0].numel())

    network = Vae(model)
    for module in network.modules():
        module.register_forward_hook(count)
    network(torch.zeros(1, PIXELS))
    return 3.0 * sum(forward) - forward[0]

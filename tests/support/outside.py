"""Parts as a user writes them, outside the tree: named by ``kind: external`` and this file's path."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from vae.data import Content
from vae.objectives.loss import Loss


@dataclass(frozen=True)
class Tempered:
    """Reconstruction + the square root of the KL, weighed."""

    weight: float = 2.0
    kind = "tempered"
    samples = 1
    importance_weighted = False
    posteriors = ("diagonal",)

    def loss(self, batch):
        """A scalar, and a term for the row."""
        root = batch.terms.kl.sum(1).clamp(min=1e-6).sqrt().mean()
        return Loss(batch.terms.reconstruction.mean() + self.weight * root, {"root_kl": root})

    def annealing_epochs(self, epochs):
        """None."""
        return 0

    def cycle_epochs(self, epochs):
        """None."""


@dataclass(frozen=True)
class Probit:
    """Bernoulli pixels through the normal distribution function, on levels 0..n as one trial each."""

    kind = "probit"
    discrete = False
    support = "real"

    def build(self, *, levels):
        """The module."""
        return _Probit()


class _Probit(nn.Module):
    outputs_per_dimension = 1

    def nll(self, output, x):
        return 0.5 * (x - torch.special.ndtr(output)).square()

    def mean(self, output):
        return torch.special.ndtr(output)

    def output_bias(self, mean):
        return torch.special.ndtri(mean.clamp(1e-3, 1 - 1e-3))

    def diagnostics(self, output):
        return {}


@dataclass(frozen=True)
class Linear:
    """One affine map each way."""

    kind = "linear"
    scale: float = 1.0

    def build(self, sizes):
        """Encoder and decoder."""
        encoder = _Map(sizes.dimensions + sizes.encoder_condition, sizes.posterior_outputs, self.scale)
        outputs = sizes.outputs_per_dimension * sizes.dimensions
        return encoder, _Map(sizes.latent + sizes.decoder_condition, outputs, self.scale)


class _Map(nn.Module):
    def __init__(self, inputs, outputs, scale):
        super().__init__()
        self.affine = nn.Linear(inputs, outputs)
        self.scale = scale

    def forward(self, h, condition):
        h = h if condition is None else torch.cat([h, condition], dim=1)
        return self.scale * functional.linear(h, self.affine.weight, self.affine.bias)


@dataclass(frozen=True)
class Stripes:
    """Images of 6×6 stripes, in two directions."""

    kind = "stripes"
    binarisation: str = "none"
    dequantise: bool = False
    validation: int | None = None
    split_seed: int = 0
    count: int = 40

    def load(self, directory, *, train):
        """Rows or columns at random."""
        generator = torch.Generator().manual_seed(int(train))
        labels = torch.randint(0, 2, (self.count,), generator=generator)
        lines = torch.randint(0, 5, (self.count, 1, 6, 1), generator=generator, dtype=torch.uint8)
        images = lines.expand(-1, 1, 6, 6)
        images = torch.where(labels[:, None, None, None] == 0, images, images.transpose(2, 3)).contiguous()
        return Content(images, labels, levels=4, num_classes=2, validation=8)

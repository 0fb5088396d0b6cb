"""A VAE whose likelihood and bound are known in closed form: affine maps, Gaussian pixels, weights by hand.

p(z|y) = N(m, S), x = W z + V y + b + s·ε. With the columns of W orthogonal and S diagonal, the true posterior
is a diagonal Gaussian whose mean is affine in (x, y): an encoder without hidden layers can hold it exactly.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from tests.support.small import held_out, noise_images, small_config
from vae.conditioning import OnLabel, Unconditional
from vae.likelihoods import Gaussian
from vae.measure import measure_of
from vae.model import VAE
from vae.networks import Mlp
from vae.priors import LabelConditional, StandardNormal

if TYPE_CHECKING:
    from torch import Tensor

    from vae.data.pixels import Pixels
    from vae.measure import Measure

LATENT, CLASSES, VARIANCE = 2, 3, 0.03


@dataclass(frozen=True)
class Affine:
    """The model with its data and what it must score them, [N], in nats."""

    model: VAE
    pixels: Pixels
    measure: Measure
    log_p: Tensor  # log p(x), or log p(x|y) of each example's own label
    log_p_by_label: Tensor | None  # [K, N]
    elbo: Tensor  # its exact expectation over z


@torch.no_grad()
def affine(*, error: float = 0.0, labelled: bool = False, examples: int = 30) -> Affine:
    """``error``: how far the encoder is from the true posterior, 0 for not at all."""
    shape = (1, 2, 3)
    data = noise_images(shape, classes=CLASSES, train=2, validation=examples)
    config = small_config(
        network=Mlp(hidden=()),
        latent_size=LATENT,
        likelihood=Gaussian(variance=VARIANCE),
        conditioning=OnLabel() if labelled else Unconditional(),
        prior=LabelConditional() if labelled else StandardNormal(),
    )
    model = VAE(config, shape=shape, levels=data.levels, num_classes=CLASSES)
    generator = torch.Generator().manual_seed(11)
    dimensions = 6
    w = torch.linalg.qr(torch.randn((dimensions, LATENT), generator=generator))[0] * torch.tensor([0.5, 0.2])
    b = 0.5 + 0.1 * torch.randn(dimensions, generator=generator)
    v = 0.1 * torch.randn((dimensions, CLASSES), generator=generator) if labelled else torch.zeros(6, CLASSES)
    m = torch.randn((CLASSES, LATENT), generator=generator) if labelled else torch.zeros(CLASSES, LATENT)
    log_s = torch.tensor([-0.7, 0.4]) if labelled else torch.zeros(LATENT)
    precision = torch.exp(-log_s) + w.square().sum(0) / VARIANCE
    to_mean = (w / VARIANCE / precision).T

    encoder, decoder = model.encoder.affine[-1], model.decoder.affine[-1]
    encoder.weight.zero_()
    encoder.weight[:LATENT, :dimensions] = to_mean
    encoder.bias[:LATENT] = -to_mean @ b + error * torch.tensor([0.1, -0.3])
    encoder.bias[LATENT:] = -torch.log(precision) + error * torch.tensor([0.4, -0.2])
    decoder.weight[:, :LATENT] = w
    decoder.bias.copy_(b)
    if labelled:
        encoder.weight[:LATENT, dimensions:] = -to_mean @ v + (torch.exp(-log_s) / precision * m).T
        decoder.weight[:, LATENT:] = v
        model.prior.mean_of.copy_(m)
        model.prior.log_variance_of.copy_(log_s.expand(CLASSES, -1))
        model.label_log_prior.copy_(torch.tensor([0.2, 0.5, 0.3]).log())

    pixels = held_out(dataclasses.replace(config, likelihood=Gaussian()), data)
    x, labels = pixels.batch(slice(0, examples)).double(), pixels.labels
    w, b, v, m, s = w.double(), b.double(), v.double(), m.double(), torch.exp(log_s.double())
    covariance = w * s @ w.T + VARIANCE * torch.eye(dimensions)
    means = (v.T + b) + m @ w.T  # [K, D]
    by_label = torch.stack([MultivariateNormal(mean, covariance).log_prob(x) for mean in means])
    log_p = by_label[labels, torch.arange(examples)]

    one_hot = torch.nn.functional.one_hot(labels, CLASSES).float() if labelled else None
    encoded = model.encode(x.float(), one_hot)
    mean, log_variance = encoded.mean.double(), encoded.log_variance.double()
    posterior = Normal(mean, torch.exp(0.5 * log_variance))
    kl = kl_divergence(posterior, Normal(m[labels], s.sqrt())).sum(1)
    at_mean = Normal(mean @ w.T + b + v.T[labels], VARIANCE**0.5).log_prob(x).sum(1)
    spread = 0.5 * (posterior.variance * w.square().sum(0)).sum(1) / VARIANCE
    assert data.validation is not None
    return Affine(
        model=model,
        pixels=pixels,
        measure=measure_of(config, data.validation, levels=data.levels),
        log_p=log_p,
        log_p_by_label=by_label if labelled else None,
        elbo=at_mean - spread - kl,
    )

"""What people do with a trained model, as functions of tensors. ``research`` has the files and the verbs.

x is [B, D] in the scale of the data; labels are [B]. Everything is in evaluation mode and without gradients.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from vae import seeds
from vae.config import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vae.corruption import CorruptionConfig
    from vae.data.pixels import Pixels
    from vae.model import VAE

BATCH = 1000


@torch.no_grad()
def sample(
    model: VAE, count: int, *, seed: int, labels: Tensor | None = None, temperature: float = 1.0
) -> Tensor:
    """E[x|z] for ``count`` draws of z from the prior, [count, D]. ``labels`` [count]: what a labelled model is asked for.

    ``temperature`` multiplies the noise that z is made of: below 1, samples nearer to the prior's middle.

    Raises:
        ConfigError: the model has no prior to draw from, or needs labels, or part of an image.

    """
    if not model.generative:
        raise ConfigError("a deterministic code has no density to draw from: sample a variational model, or a WAE")
    if model.conditioning.decoder_size > 0 and not model.labelled:
        raise ConfigError("this model completes images of which it is told a part: use 'research inpaint'")
    model.eval()
    device = _device(model)
    condition = None
    if model.labelled:
        if labels is None:
            labels = torch.arange(count) % model.num_classes
        condition = model.condition(torch.empty(count, 0, device=device), labels.to(device))
    generator = seeds.generator(seed, "sample")
    noise = temperature * torch.randn((count, model.latent_size), generator=generator)
    uniform = torch.rand(count, generator=generator)
    return model.sample(noise.to(device), uniform.to(device), condition)


@torch.no_grad()
def reconstruct(model: VAE, x: Tensor, labels: Tensor, *, seen: Tensor | None = None) -> Tensor:
    """E[x|z] at the posterior mean, [B, D]; ``seen``: what the encoder sees in place of x."""
    model.eval()
    condition = model.condition(x, labels)
    return model.reconstruct(model.encode(x if seen is None else seen, condition).mean, condition)


@torch.no_grad()
def denoise(model: VAE, x: Tensor, labels: Tensor, corruption: CorruptionConfig, *, seed: int) -> tuple[Tensor, Tensor]:
    """The corrupted x and what the model makes of it, each [B, D]."""
    corrupted = corruption.apply(x, seeds.generator(seed, "denoise"))
    return corrupted, reconstruct(model, x, labels, seen=corrupted)


@torch.no_grad()
def inpaint(model: VAE, x: Tensor, labels: Tensor, missing: Tensor, *, steps: int = 50) -> Tensor:
    """x with the dimensions where ``missing`` [D] is True filled in, [B, D].

    They start at the middle of their range and are replaced ``steps`` times by what the model makes of the whole, the known ones put
    back each time (Rezende et al. 2014, appendix F, at the posterior mean): a point that the model is content with, not
    a draw from p(missing | known). A model that is told part of an image and misses the rest draws it in one step.
    """
    model.eval()
    filled = torch.where(missing, torch.full_like(x, 0.5), x)
    for _ in range(steps):
        filled = torch.where(missing, reconstruct(model, filled, labels), x)
    return filled


@torch.no_grad()
def interpolate(
    model: VAE, x: Tensor, labels: Tensor, *, steps: int, path: Literal["linear", "spherical"] = "linear"
) -> Tensor:
    """Decodings along the way from the code of x[0] to that of x[1], [steps, D]; a labelled model keeps x[0]'s label."""
    model.eval()
    condition = model.condition(x, labels)
    start, end = model.encode(x, condition).mean
    along = torch.linspace(0, 1, steps, device=x.device)[:, None]
    if path == "spherical":
        cosine = torch.nn.functional.cosine_similarity(start, end, dim=0).clamp(-1, 1)
        angle = torch.arccos(cosine)
        weights = torch.sin((1 - along) * angle), torch.sin(along * angle)
        z = (weights[0] * start + weights[1] * end) / torch.sin(angle) if angle > 1e-4 else start.lerp(end, along)  # noqa: PLR2004
    else:
        z = torch.lerp(start, end, along)
    return model.reconstruct(z, None if condition is None else condition[:1].expand(steps, -1))


@torch.no_grad()
def traverse(model: VAE, x: Tensor, labels: Tensor, *, steps: int, reach: float) -> Tensor:
    """Each latent dimension of the code of x [1, D] set to −``reach``..``reach``, the others kept: [L, steps, D]."""
    model.eval()
    condition = model.condition(x, labels)
    code = model.encode(x, condition).mean
    values = torch.linspace(-reach, reach, steps, device=x.device)
    z = code.expand(model.latent_size, steps, -1).clone()
    for dimension in range(model.latent_size):
        z[dimension, :, dimension] = values
    told = None if condition is None else condition.expand(model.latent_size * steps, -1)
    return model.reconstruct(z.flatten(0, 1), told).unflatten(0, (model.latent_size, steps))


@torch.no_grad()
def codes(model: VAE, pixels: Pixels) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Posterior means [b, L], variances [b, L] and labels [b], batch by batch."""
    model.eval()
    for rows in _blocks(len(pixels)):
        x, labels = pixels.batch(rows), pixels.labels[rows]
        posterior = model.encode(x, model.condition(x, labels))
        yield posterior.mean.cpu(), posterior.variance.cpu(), labels.cpu()


@torch.no_grad()
def scores(model: VAE, pixels: Pixels, *, seed: int, samples: int, split: str) -> Iterator[dict[str, Tensor]]:
    """Per example: ``elbo``, ``reconstruction``, ``kl`` where there is a density, and ``squared_error``; [b] each.

    The noise is that of a split's held-out rows (``vae.evaluate``): the mean over a split is its row's.
    """
    model.eval()
    noise_of = seeds.generator(seed, "z", split)
    noise = torch.randn((samples, len(pixels), model.latent_size), generator=noise_of)
    for rows in _blocks(len(pixels)):
        x, labels = pixels.batch(rows), pixels.labels[rows]
        condition = model.condition(x, labels)
        posterior = model.encode(x, condition)
        z = posterior.sample(noise[:, rows].to(x.device)) if model.has_density else posterior.mean.unsqueeze(0)
        reconstruction = model.nll(z, condition, x).double().mean(0)
        squared = (model.reconstruct(posterior.mean, condition) - x).double().square().sum(1)
        found = {"reconstruction": reconstruction, "squared_error": squared}
        if model.has_density:
            kl = model.prior.kl(posterior, z, condition, model.encode_alone).double().sum(1)
            found = {"elbo": -(reconstruction + kl), "kl": kl} | found
        yield {name: value.cpu() for name, value in found.items()}


def paired_difference(a: Tensor, b: Tensor) -> tuple[float, float, float]:
    """Mean of a − b over examples, its standard error, and the half width of its 95 % interval (normal)."""
    difference = (a - b).double()
    error = (difference.std() / math.sqrt(len(difference))).item() if len(difference) > 1 else math.inf
    return difference.mean().item(), error, 1.959964 * error


def _device(model: VAE) -> torch.device:
    return next(model.parameters()).device


def _blocks(count: int) -> Iterator[slice]:
    for start in range(0, count, BATCH):
        yield slice(start, min(start + BATCH, count))

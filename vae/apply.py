"""The uses of a trained model, as functions of tensors. ``research`` has the files and the verbs.

x is [B, D] in the scale of the data; labels are [B]. Everything is in evaluation mode and without gradients.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from vae import seeds
from vae.config import ConfigError
from vae.evaluate import blocks, bounds
from vae.priors.label_conditional import LabelConditionalPrior
from vae.priors.standard_normal import StandardNormalPrior
from vae.train_config import Evaluation

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from vae.corruption import CorruptionConfig
    from vae.data.pixels import Pixels
    from vae.model import VAE

BATCH = 1000
_DRAWS = 10_000  # of a prior, for its moments
_SAME = 1e-4  # radians: two directions closer than that are one


@torch.no_grad()
def sample(model: VAE, count: int, *, seed: int, labels: Tensor | None = None, temperature: float = 1.0) -> Tensor:
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

    They start at the middle of their range (real values: at 0) and are replaced ``steps`` times by what the model makes
    of the whole, the known ones put back each time (Rezende et al. 2014, appendix F, at the posterior mean): a point
    that the model is content with, not a draw from p(missing | known), and it depends on where it started. A model that
    is told part of an image makes the rest of that and of the middle of its prior, in one step.

    Raises:
        ConfigError: the model is told another part of the image than the one that is not missing.

    """
    model.eval()
    seen = model.conditioning.seen
    if seen is not None:
        own = torch.ones_like(missing).index_fill(0, seen, False)  # noqa: FBT003 - torch's own argument
        if not torch.equal(own, missing):
            raise ConfigError("this model is told one fixed part of an image and makes the rest: no other mask fits it")
        middle = x.new_zeros(len(x), model.latent_size)
        return model.sample(middle, x.new_full((len(x),), 0.5), model.condition(x, labels))
    filled = torch.where(missing, torch.full_like(x, 0.5 if model.levels else 0.0), x)
    for _ in range(steps):
        filled = torch.where(missing, reconstruct(model, filled, labels), x)
    return filled


@torch.no_grad()
def interpolate(
    model: VAE, x: Tensor, labels: Tensor, *, steps: int, path: Literal["linear", "spherical"] = "linear"
) -> Tensor:
    """Decodings along the way from the code of x[0] to that of x[1], [steps, D]; what else is told stays x[0]'s.

    ``spherical``: along the arc between the two (White 2016, arXiv:1609.04468); the line where there is no one arc.
    """
    model.eval()
    condition = model.condition(x, labels)
    start, end = model.encode(x, condition).mean
    along = torch.linspace(0, 1, steps, device=x.device)[:, None]
    if path == "spherical":
        cosine = torch.nn.functional.cosine_similarity(start, end, dim=0).clamp(-1, 1)
        angle = torch.arccos(cosine)
        weights = torch.sin((1 - along) * angle), torch.sin(along * angle)
        one_arc = _SAME < angle < math.pi - _SAME
        z = (weights[0] * start + weights[1] * end) / torch.sin(angle) if one_arc else torch.lerp(start, end, along)
    else:
        z = torch.lerp(start, end, along)
    return model.reconstruct(z, None if condition is None else condition[:1].expand(steps, -1))


@torch.no_grad()
def traverse(
    model: VAE,
    x: Tensor,
    labels: Tensor,
    *,
    steps: int,
    reach: float,
    dimensions: Sequence[int] | None = None,
    moments: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Latent dimensions of the code of x [1, D] moved one at a time, the others kept: [dimensions, steps, D].

    Each goes from mean − ``reach``·deviation to mean + ``reach``·deviation (Higgins et al. 2017, section 4.1) of
    ``moments``, [L] each; the prior's, if not given. ``dimensions``: all, if not given.
    """
    model.eval()
    condition = model.condition(x, labels)
    code = model.encode(x, condition).mean
    mean, deviation = prior_moments(model, condition) if moments is None else moments
    chosen = list(range(model.latent_size)) if dimensions is None else list(dimensions)
    values = torch.linspace(-reach, reach, steps, device=x.device)
    z = code.expand(len(chosen), steps, -1).clone()
    for row, dimension in enumerate(chosen):
        z[row, :, dimension] = mean[dimension] + values * deviation[dimension]
    told = None if condition is None else condition.expand(len(chosen) * steps, -1)
    moved: Tensor = model.reconstruct(z.flatten(0, 1), told).unflatten(0, (len(chosen), steps))
    return moved


@torch.no_grad()
def prior_moments(model: VAE, condition: Tensor | None) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each dimension of p(z), or of p(z|y) of one example's condition [1, K]; [L] each.

    Exact for one Gaussian; of a mixture, from draws that are always the same.
    """
    device = _device(model)
    if isinstance(model.prior, StandardNormalPrior):
        return torch.zeros(model.latent_size, device=device), torch.ones(model.latent_size, device=device)
    if isinstance(model.prior, LabelConditionalPrior):
        mean, log_variance = model.prior.moments(condition)
        return mean[0], torch.exp(0.5 * log_variance[0])
    generator = seeds.generator(0, "prior moments")
    noise = torch.randn((_DRAWS, model.latent_size), generator=generator).to(device)
    uniform = torch.rand(_DRAWS, generator=generator).to(device)
    z = model.draw_prior(noise, uniform, None if condition is None else condition.expand(_DRAWS, -1))
    return z.mean(0), z.std(0)


@torch.no_grad()
def code_moments(model: VAE, pixels: Pixels) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation over 1,000 examples of each dimension of their codes, [L] each.

    What a code's scale is where no prior says so.
    """
    mean, _, _ = some_codes(model, pixels, BATCH)
    device = _device(model)
    return mean.mean(0).to(device), mean.std(0, correction=0).to(device)


def some_codes(model: VAE, pixels: Pixels, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the :func:`codes` of ``count`` examples that stand for all: ``Pixels.subset``."""
    mean, variance, labels = zip(*codes(model, pixels, pixels.subset(count)), strict=True)
    return torch.cat(mean), torch.cat(variance), torch.cat(labels)


@torch.no_grad()
def codes(model: VAE, pixels: Pixels, index: Tensor | None = None) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Posterior means [b, L], variances [b, L] and labels [b], batch by batch; of all examples, or those at ``index``."""
    model.eval()
    for rows in blocks(len(pixels), BATCH) if index is None else index.split(BATCH):
        x, labels = pixels.batch(rows), pixels.labels[rows]
        posterior = model.encode(x, model.condition(x, labels))
        yield posterior.mean.cpu(), posterior.variance.cpu(), labels.cpu()


@torch.no_grad()
def scores(model: VAE, pixels: Pixels, *, seed: int, samples: int, split: str) -> Iterator[dict[str, Tensor]]:
    """Yield the scores of each example, batch by batch, [b] each, in float64 on the CPU.

    ``reconstruction``, and for a model with a density ``elbo`` and ``kl``, are in nats. ``squared_error`` is
    Σ_d (E[x|z] − x)² at the posterior mean, in the scale of x. The noise is that of a split's held-out rows
    (``vae.evaluate``), so the mean over a split is the value in its row.
    """
    model.eval()
    settings = Evaluation(seed=seed, samples=samples, batch_size=BATCH)
    for scored in bounds(model, pixels, settings, split):
        terms = scored.terms
        reconstruction = terms.reconstruction.double().mean(0)
        decoded = model.reconstruct(terms.posterior.mean, scored.condition)
        found = {
            "reconstruction": reconstruction,
            "squared_error": (decoded - scored.x).double().square().sum(1),
        }
        if model.has_density:
            kl = terms.kl.double().sum(1)
            found = {"elbo": -(reconstruction + kl), "kl": kl} | found
        yield {name: value.cpu() for name, value in found.items()}


def _device(model: VAE) -> torch.device:
    return next(model.parameters()).device

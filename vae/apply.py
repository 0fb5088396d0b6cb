"""The uses of a trained model, as functions of tensors. ``research`` adds files and commands.

x is [B, D] in the scale of the data, and labels are [B]. All functions put the model into evaluation mode and compute no
gradients.
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

BATCH = 1000  # examples at once
_DRAWS = 10_000  # draws from a prior, for its moments
_SAME = 1e-4  # radians; two directions that are closer count as equal


@torch.no_grad()
def sample(model: VAE, count: int, *, seed: int, labels: Tensor | None = None, temperature: float = 1.0) -> Tensor:
    """Return E[x|z] for ``count`` draws of z from the prior, [count, D].

    ``labels`` [count] are the condition of a labelled model. ``temperature`` multiplies the noise from which z is made. Below
    1, samples are nearer to the prior's centre.

    Raises:
        ConfigError: The model has no prior to draw from, or needs part of an image as its condition.

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
    """Return E[x|z] at the posterior mean, [B, D]. The encoder sees ``seen`` instead of x if it is given."""
    model.eval()
    condition = model.condition(x, labels)
    return model.reconstruct(model.encode(x if seen is None else seen, condition).mean, condition)


@torch.no_grad()
def denoise(model: VAE, x: Tensor, labels: Tensor, corruption: CorruptionConfig, *, seed: int) -> tuple[Tensor, Tensor]:
    """Return the corrupted x and its reconstruction, each [B, D]."""
    corrupted = corruption.apply(x, seeds.generator(seed, "denoise"))
    return corrupted, reconstruct(model, x, labels, seen=corrupted)


@torch.no_grad()
def inpaint(model: VAE, x: Tensor, labels: Tensor, missing: Tensor, *, steps: int = 50) -> Tensor:
    """Return x with the dimensions where ``missing`` [D] is True filled in, [B, D].

    They start at the middle of their range; real values start at 0. They are replaced ``steps`` times by the reconstruction
    of the whole image, and the known dimensions are restored each time (Rezende et al. 2014, appendix F, at the posterior
    mean). The result is a fixed point of the model, not a draw from p(missing | known), and depends on the start.

    A model conditioned on part of an image makes the rest in one step, from that part and the centre of its prior.

    Raises:
        ConfigError: The model is conditioned on another part of the image than the known one.

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
    """Return decodings along the path from the code of x[0] to the code of x[1], [steps, D]. The condition is that of x[0].

    A ``spherical`` path follows the arc between the two codes (White 2016, arXiv:1609.04468). If the arc is not unique, it
    is the straight line.
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
    """Move the latent dimensions of the code of x [1, D] one at a time; return decodings [dimensions, steps, D].

    Each dimension goes from mean − ``reach``·deviation to mean + ``reach``·deviation (Higgins et al. 2017, section 4.1).
    ``moments`` are the means and deviations, [L] each, by default the prior's. By default all ``dimensions`` are moved.
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
    """Return mean and standard deviation of each dimension of p(z), or of p(z|y) for one condition [1, K]; [L] each.

    They are exact for a single Gaussian. For a mixture they are estimated from fixed draws.
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
    """Return mean and standard deviation of each dimension of the codes of 1,000 examples, [L] each.

    They are the scale of a code for models without a prior.
    """
    mean, _, _ = some_codes(model, pixels, BATCH)
    device = _device(model)
    return mean.mean(0).to(device), mean.std(0, correction=0).to(device)


def some_codes(model: VAE, pixels: Pixels, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the :func:`codes` of a subset of ``count`` examples, chosen by ``Pixels.subset``."""
    mean, variance, labels = zip(*codes(model, pixels, pixels.subset(count)), strict=True)
    return torch.cat(mean), torch.cat(variance), torch.cat(labels)


@torch.no_grad()
def codes(model: VAE, pixels: Pixels, index: Tensor | None = None) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield posterior means [b, L], variances [b, L] and labels [b], batch by batch, for all examples or those at ``index``."""
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

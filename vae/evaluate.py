"""Held-out numbers: the bound and its terms, importance-weighted likelihood, active units.

Nats per example, summed over an example's dimensions, all constants in place; sums over a split are taken in
float64, and ``elbo`` is computed from the other two, so ``elbo = −(reconstruction + kl)`` holds exactly in
every row. Noise comes from the evaluation seed, never from the trial's, and does not depend on batch sizes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from vae import seeds
from vae.distributions import log_normal, sample_normal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vae.data.pixels import Pixels
    from vae.measure import Measure
    from vae.model import VAE
    from vae.train_config import Evaluation

ACTIVE_VARIANCE = 0.01  # Burda et al. 2016, arXiv:1509.00519, section 5.2
COLLAPSED_KL = 0.1  # nats; a proposal: below it the code carries nothing that anyone could use

# One decoder call of the importance-weighted estimate: images × samples. Fixed, so that its noise is too.
IMAGES_AT_ONCE = 20
SAMPLES_AT_ONCE = 100


def one_hot(model: VAE, labels: Tensor) -> Tensor | None:
    """Labels [B] as [B, K] float, or None for a model that takes none."""
    return functional.one_hot(labels, model.num_classes).float() if model.conditional else None


@torch.no_grad()
def evaluate(
    model: VAE, pixels: Pixels, settings: Evaluation, measure: Measure
) -> dict[str, float | bool | list[float]]:
    """The bound on every example of a split.

    Returns:
        ``elbo``, ``reconstruction``, ``kl`` (nats per example), ``kl_per_dimension`` [L],
        ``active_units``, ``collapsed``, and where p is a normalised mass function
        ``bits_per_dimension``, of the bound: −elbo / (D log 2).

    """
    was_training = model.training
    model.eval()
    reconstruction = 0.0
    kl = torch.zeros(model.latent_size, dtype=torch.float64)
    codes = []
    noise_of = seeds.generator(settings.seed, "z", measure.split)
    noise = torch.randn((settings.samples, len(pixels), model.latent_size), generator=noise_of)
    for rows in _blocks(len(pixels), settings.batch_size):
        x = pixels.batch(rows)
        label = one_hot(model, pixels.labels[rows])
        mean, log_variance = model.encode(x, label)
        kl += model.prior.kl(mean, log_variance, label).double().sum(0).cpu()
        for sample in noise[:, rows].to(x.device):
            z = sample_normal(mean, log_variance, sample)
            reconstruction += model.likelihood.nll(model.decode(z, label), x).double().sum().item()
        prior_mean, prior_log_variance = model.prior.moments(label)
        codes.append((mean - prior_mean) * torch.exp(-0.5 * prior_log_variance))
    model.train(was_training)

    kl_per_dimension = (kl / len(pixels)).tolist()
    reconstruction /= settings.samples * len(pixels)
    total_kl = math.fsum(kl_per_dimension)
    elbo = -(reconstruction + total_kl)
    metrics: dict[str, float | bool | list[float]] = {
        "elbo": elbo,
        "reconstruction": reconstruction,
        "kl": total_kl,
        "active_units": active_units(torch.cat(codes)),
        "collapsed": total_kl < COLLAPSED_KL,
        "kl_per_dimension": kl_per_dimension,
    }
    bits = bits_per_dimension(-elbo, measure)
    if bits is not None:
        metrics["bits_per_dimension"] = bits
    return metrics


def held_out_metrics(model: VAE, pixels: Pixels, settings: Evaluation, measure: Measure) -> dict[str, Any]:
    """Everything that a row says of a split: :func:`evaluate`, and ``nll_iwae`` with its error where asked for."""
    metrics: dict[str, Any] = dict(evaluate(model, pixels, settings, measure))
    if settings.nll_k > 0:
        estimate = importance_weighted_nll(
            model,
            pixels,
            k=settings.nll_k,
            images=settings.nll_images,
            seed=settings.seed,
            split=measure.split,
        )
        metrics |= estimate.metrics()
    return metrics


def active_units(codes: Tensor) -> int:
    """How many dimensions of the posterior mean [N, L] vary over the data by more than 0.01 (Burda et al. 2016).

    For a learned p(z|y) the codes are (μ_q − μ_p) / σ_p.
    """
    return int((codes.double().var(0, correction=0) > ACTIVE_VARIANCE).sum())


def bits_per_dimension(nll: float, measure: Measure) -> float | None:
    """Nats per example -> bits per dimension; None where the number would not mean that.

    Mass functions: nll / (D log 2). Densities only after uniform dequantisation, on the scale of the integers:
    (nll + D log(levels + 1)) / (D log 2) (Theis et al. 2016, arXiv:1511.01844, section 3.1).
    """
    scale = 0.0
    if not measure.normalised:
        return None
    if measure.event_space.startswith("real("):
        if "+u" not in measure.event_space:
            return None
        scale = math.log(float(measure.event_space.partition("/")[2].partition(",")[0]))
    return (nll + measure.dimensions * scale) / (measure.dimensions * math.log(2))


@dataclass(frozen=True)
class ImportanceWeighted:
    """−log p(x) estimated with k importance samples: an upper bound in expectation, tighter as k grows."""

    nll: float  # nats per example, mean over images
    standard_error: float  # of that mean, over images
    change_from_half: float  # nll at k minus nll at k/2 (its first half): what doubling k still gave
    k: int
    images: int

    def metrics(self, name: str = "nll_iwae") -> dict[str, float | int]:
        """The estimate by the names that rows use."""
        return {
            name: self.nll,
            f"{name}_standard_error": self.standard_error,
            f"{name}_change_from_half_k": self.change_from_half,
            f"{name}_k": self.k,
            f"{name}_images": self.images,
        }


@torch.no_grad()
def importance_weighted_nll(
    model: VAE, pixels: Pixels, *, k: int, images: int, seed: int, split: str, marginal: bool = False
) -> ImportanceWeighted:
    """−log (1/k) Σ_i p(x, z_i) / q(z_i|x), z_i ~ q(z|x) (Burda et al. 2016, eq. 8), over the first ``images`` examples.

    ``marginal``: for a labelled model −log Σ_y p(y) p(x|y), each p(x|y) estimated with its own k samples and
    p(y) the training labels' frequencies. Otherwise log p(x|y) at each example's own label.
    Memory is bounded by a block of images × samples, whatever k.
    """
    was_training = model.training
    model.eval()
    images = min(images, len(pixels))
    noise_of = seeds.generator(seed, "importance", split)
    at_k, at_half = [], []
    for rows in _blocks(images, IMAGES_AT_ONCE):
        x = pixels.batch(rows)
        if marginal:
            per_label = []
            for y in range(model.num_classes):
                label = one_hot(model, torch.full((len(x),), y, device=x.device))
                per_label.append(_log_mean_weight(model, x, label, k, noise_of))
            prior = model.label_log_prior.double()[:, None, None]
            both = torch.logsumexp(torch.stack(per_label) + prior, dim=0)
        else:
            both = _log_mean_weight(model, x, one_hot(model, pixels.labels[rows]), k, noise_of)
        at_half.append(both[0].cpu())
        at_k.append(both[1].cpu())
    model.train(was_training)
    nll, half = -torch.cat(at_k), -torch.cat(at_half)
    error = (nll.std() / math.sqrt(images)).item() if images > 1 else math.inf
    return ImportanceWeighted(
        nll=nll.mean().item(),
        standard_error=error,
        change_from_half=(nll.mean() - half.mean()).item(),
        k=k,
        images=images,
    )


def _log_mean_weight(model: VAE, x: Tensor, label: Tensor | None, k: int, noise_of: torch.Generator) -> Tensor:
    """Log of the mean importance weight with the first k/2 and with all k samples, [2, B] in float64."""
    mean, log_variance = model.encode(x, label)
    half = max(1, k // 2)
    total = torch.full((len(x),), -math.inf, dtype=torch.float64, device=x.device)
    at_half = total
    drawn = 0
    while drawn < k:
        # A chunk never crosses k/2, so that the first half is exactly the estimate at k/2.
        stop = half if drawn < half else k
        samples = min(SAMPLES_AT_ONCE, stop - drawn)
        noise = torch.randn((samples, len(x), model.latent_size), generator=noise_of).to(x.device)
        z = sample_normal(mean, log_variance, noise)
        log_ratio = (model.prior.log_density(z, label) - log_normal(z, mean, log_variance)).sum(2)
        many_x = x.expand(samples, *x.shape).flatten(0, 1)
        many_labels = None if label is None else label.expand(samples, *label.shape).flatten(0, 1)
        log_likelihood = -model.likelihood.nll(model.decode(z.flatten(0, 1), many_labels), many_x)
        log_weight = log_likelihood.view(samples, len(x)).double() + log_ratio.double()
        total = torch.logaddexp(total, torch.logsumexp(log_weight, dim=0))
        drawn += samples
        if drawn == half:
            at_half = total
    return torch.stack([at_half - math.log(half), total - math.log(k)])


def _blocks(count: int, size: int) -> Iterator[slice]:
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))

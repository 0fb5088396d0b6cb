"""Held-out metrics: the bound and its terms, the importance-weighted likelihood, active units.

All likelihood terms are in nats per example, summed over an example's dimensions, with all constants. Sums over a split
are taken in float64. ``elbo`` is computed from the other two terms, so ``elbo = −(reconstruction + kl)`` holds exactly in
every row. The noise comes from the evaluation seed, never from the trial's seed, and does not depend on batch sizes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vae import seeds
from vae.fast.evaluation import scorer
from vae.likelihoods import Diagnosed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vae.corruption import CorruptionConfig
    from vae.data.pixels import Pixels
    from vae.measure import Measure
    from vae.model import VAE, Score, Terms
    from vae.train_config import Evaluation

Scores = dict[str, float | list[float]]  # metrics by name; kl_per_dimension is the list

ACTIVE_VARIANCE = 0.01  # Burda et al. 2016, arXiv:1509.00519, section 5.2
COLLAPSED_KL = 0.1  # nats, our own choice: below it the code carries no useful information

# The importance-weighted estimate draws its noise in blocks of images × samples. The block is fixed, so that the noise is
# the same for every batch size. The same number of images is corrupted at once.
IMAGES_AT_ONCE = 20
DRAWN_AT_ONCE = 100
SAMPLES_AT_ONCE = 2500  # samples of an image that are scored at once: 25 blocks


@torch.no_grad()
def evaluate(
    model: VAE,
    pixels: Pixels,
    settings: Evaluation,
    measure: Measure,
    corruption: CorruptionConfig | None = None,
) -> Scores:
    """Return the metrics of a split, by name, from the bound of each example.

    Returns:
        ``elbo``, ``reconstruction`` and ``kl`` (nats per example), ``active_units`` and ``collapsed``.
        If the KL divides into dimensions, ``kl_per_dimension`` [L]. If it is estimated, ``kl_samples`` and
        ``kl_standard_error`` (over examples).
        If bits mean something for this measure, ``bits_per_dimension`` of the bound, see :func:`bits_per_dimension`.
        A deterministic code has only ``reconstruction`` and ``squared_error``.
        With a ``corruption``, ``denoise_error``, see :func:`denoise_error`.

    """
    was_training = model.training
    model.eval()
    if model.has_density:
        scores = _bound(model, pixels, settings, measure)
    else:
        scores = _errors(model, pixels, settings, measure.split)
    if corruption is not None and corruption.kind != "none":
        scores["denoise_error"] = denoise_error(model, pixels, settings, corruption, split=measure.split)
    model.train(was_training)
    return scores


@dataclass(frozen=True)
class Scored:
    """A batch of b examples of a split with the terms of their bound."""

    x: Tensor  # [b, D]
    condition: Tensor | None  # [b, K]
    terms: Terms


@torch.no_grad()
def bounds(model: VAE, pixels: Pixels, settings: Evaluation, split: str, nll: Score | None = None) -> Iterator[Scored]:
    """Yield the bound of every example of ``pixels``, batch by batch. The model must be in evaluation mode.

    The noise is a function of ``settings.seed`` and ``split``. Each example has ``settings.samples`` draws of z; a
    deterministic code has one. ``nll`` computes −log p(x|z) in place of ``model.nll``.
    """
    shape = (settings.samples if model.has_density else 1, len(pixels), model.latent_size)
    noise = _noise(settings.seed, split, shape) if model.has_density else torch.zeros(shape)
    for rows in blocks(len(pixels), settings.batch_size):
        x = pixels.batch(rows)
        condition = model.condition(x, pixels.labels[rows])
        yield Scored(x, condition, model.terms(x, condition, noise[:, rows].to(x.device), nll=nll))


@lru_cache(maxsize=1)
def _noise(seed: int, split: str, shape: tuple[int, int, int]) -> Tensor:
    """Return the noise of the posterior's samples, the same in every epoch and for all trials of a worker. Do not modify it."""
    return torch.randn(shape, generator=seeds.generator(seed, "z", split))


class _Watched:
    """``model.nll`` that also sums the likelihood's diagnostics over samples and examples.

    It decodes one sample of z at a time, so that memory holds one decoding of a batch whatever the number of samples.
    """

    def __init__(self, model: VAE) -> None:
        self.model = model
        self.diagnosed = model.likelihood if isinstance(model.likelihood, Diagnosed) else None
        self.sums = dict[str, Tensor | float]()

    def nll(self, z: Tensor, condition: Tensor | None, x: Tensor) -> Tensor:
        """Return −log p(x|z): z [S, B, L], condition [B, K] or None, x [B, D] -> [S, B] nats."""
        by_sample = []
        for sample in z:
            output = self.model.decode(sample, condition)
            by_sample.append(self.model.score(output, x))
            if self.diagnosed is not None:
                for name, values in self.diagnosed.diagnostics(output).items():
                    self.sums[name] = self.sums.get(name, 0.0) + values.double().sum()
        return torch.stack(by_sample)


def _bound(model: VAE, pixels: Pixels, settings: Evaluation, measure: Measure) -> Scores:
    """Return the scores of a model with a density; see :func:`evaluate`."""
    # Sums stay on the device until the end, because each value that is read makes a GPU wait.
    summed: Tensor | float = 0.0
    watched = _Watched(model)
    kls, codes = [], []
    for scored in bounds(model, pixels, settings, measure.split, watched.nll):
        kls.append(scored.terms.kl.double())
        for of_sample in scored.terms.reconstruction:
            summed = summed + of_sample.double().sum()
        codes.append(model.prior.standardise(scored.terms.posterior.mean, scored.condition))
    draws = settings.samples * len(pixels)
    kl = torch.cat(kls).cpu()
    by_column = (kl.sum(0) / len(pixels)).tolist()
    reconstruction = float(summed) / draws
    total_kl = math.fsum(by_column)
    elbo = -(reconstruction + total_kl)
    scores: Scores = {
        "elbo": elbo,
        "reconstruction": reconstruction,
        "kl": total_kl,
        "active_units": active_units(torch.cat(codes)),
        "collapsed": total_kl < COLLAPSED_KL,
    }
    if model.prior.closed_form:
        scores["kl_per_dimension"] = by_column
    else:
        scores["kl_samples"] = settings.samples
        if len(pixels) > 1:
            scores["kl_standard_error"] = (kl.sum(1).std() / math.sqrt(len(pixels))).item()
    scores |= {name: float(value) / draws for name, value in watched.sums.items()}
    bits = bits_per_dimension(-elbo, measure)
    if bits is not None:
        scores["bits_per_dimension"] = bits
    return scores


def _errors(model: VAE, pixels: Pixels, settings: Evaluation, split: str) -> Scores:
    """Return the scores of a model with a deterministic code; see :func:`evaluate`."""
    reconstruction: Tensor | float = 0.0
    squared: Tensor | float = 0.0
    for scored in bounds(model, pixels, settings, split):
        reconstruction = reconstruction + scored.terms.reconstruction.double().sum()
        decoded = model.reconstruct(scored.terms.posterior.mean, scored.condition)
        squared = squared + (decoded - scored.x).double().square().sum()
    return {"reconstruction": float(reconstruction) / len(pixels), "squared_error": float(squared) / len(pixels)}


@torch.no_grad()
def denoise_error(
    model: VAE, pixels: Pixels, settings: Evaluation, corruption: CorruptionConfig, *, split: str
) -> float:
    """Return Σ_d (E[x|z] − x)² per example in the scale of x, where z is the posterior mean of the corrupted x.

    The corruption is drawn from the evaluation seed, so every trial of a sweep denoises the same images.
    """
    noise_of = seeds.generator(settings.seed, "corruption", split)
    squared: Tensor | float = 0.0
    # Blocks of a fixed size, because torch's normal draws depend on how many are drawn at once.
    for rows in blocks(len(pixels), IMAGES_AT_ONCE):
        x = pixels.batch(rows)
        condition = model.condition(x, pixels.labels[rows])
        z = model.encode(corruption.apply(x, noise_of), condition).mean
        squared = squared + (model.reconstruct(z, condition) - x).double().square().sum()
    return float(squared) / len(pixels)


def held_out_metrics(
    model: VAE,
    pixels: Pixels,
    settings: Evaluation,
    measure: Measure,
    corruption: CorruptionConfig | None = None,
) -> Scores:
    """Return all metrics of a row for a split: those of :func:`evaluate`, and ``nll_iwae`` if ``settings.nll_k`` is not 0."""
    metrics = evaluate(model, pixels, settings, measure, corruption)
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
    """Return the number of dimensions of the posterior means [N, L] with a variance above 0.01 (Burda et al. 2016, sec. 5.2).

    For a learned p(z|y) the codes are (μ_q − μ_p) / σ_p.
    """
    return int((codes.double().var(0, correction=0) > ACTIVE_VARIANCE).sum())


def bits_per_dimension(nll: float, measure: Measure) -> float | None:
    """Convert nats per example into bits per dimension; return None if bits mean nothing for this measure.

    For a mass function this is nll / (D log 2). For a density it means something only after uniform dequantisation, on the
    scale of the integers: (nll + D log(levels + 1)) / (D log 2) (Theis et al. 2016, arXiv:1511.01844, section 3.1).
    """
    scale = 0.0
    if not (measure.normalised and measure.bound):
        return None
    if measure.event_space.startswith(("real(", "unit(")):
        if "+u" not in measure.event_space:
            return None
        scale = math.log(float(measure.event_space.partition("/")[2].partition(",")[0]))
    return (nll + measure.dimensions * scale) / (measure.dimensions * math.log(2))


@dataclass(frozen=True)
class ImportanceWeighted:
    """An estimate of −log p(x) with k importance samples. It is an upper bound in expectation, and tighter for larger k."""

    nll: float  # nats per example, mean over images
    standard_error: float  # the standard error of that mean over images
    change_from_half: float  # nll at k minus nll at k/2 (the first half of the samples): the gain from doubling k
    k: int
    images: int

    def metrics(self, name: str = "nll_iwae") -> dict[str, float | int]:
        """Return the estimate by the names that rows use."""
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
    """Estimate −log p(x) by −log (1/k) Σ_i p(x, z_i) / q(z_i|x), z_i ~ q(z|x) (Burda et al. 2016, eq. 8).

    The mean is over ``images`` examples, which :meth:`vae.data.pixels.Pixels.subset` chooses. The noise of an example
    depends on its position among them. Memory is bounded by a block of images × samples for any k.

    For a labelled model the estimate is −log p(x|y) at each example's own label. With ``marginal`` it is
    −log Σ_y p(y) p(x|y) instead: each p(x|y) is estimated with its own k samples, and p(y) is the frequency of the label
    in the training split.
    """
    was_training = model.training
    model.eval()
    chosen = pixels.subset(images)
    images = len(chosen)
    noise_of = seeds.generator(seed, "importance", split)
    nll = scorer(model)
    at_k, at_half = [], []
    for rows in chosen.split(IMAGES_AT_ONCE):
        x = pixels.batch(rows)
        if marginal:
            per_label = []
            for y in range(model.num_classes):
                condition = model.condition(x, torch.full((len(x),), y, device=x.device))
                per_label.append(_log_mean_weight(model, nll, x, condition, k=k, noise_of=noise_of))
            prior = model.label_log_prior.double()[:, None, None]
            both = torch.logsumexp(torch.stack(per_label) + prior, dim=0)
        else:
            condition = model.condition(x, pixels.labels[rows])
            both = _log_mean_weight(model, nll, x, condition, k=k, noise_of=noise_of)
        at_half.append(both[0].cpu())
        at_k.append(both[1].cpu())
    model.train(was_training)
    by_image, half = -torch.cat(at_k), -torch.cat(at_half)
    error = (by_image.std() / math.sqrt(images)).item() if images > 1 else math.inf
    return ImportanceWeighted(
        nll=by_image.mean().item(),
        standard_error=error,
        change_from_half=(by_image.mean() - half.mean()).item(),
        k=k,
        images=images,
    )


def _log_mean_weight(
    model: VAE, nll: Score, x: Tensor, condition: Tensor | None, *, k: int, noise_of: torch.Generator
) -> Tensor:
    """Return the log of the mean importance weight of the first k/2 and of all k samples, [2, B] in float64."""
    posterior = model.encode(x, condition)
    half = max(1, k // 2)
    total = torch.full((len(x),), -math.inf, dtype=torch.float64, device=x.device)
    at_half = total
    drawn = 0
    while drawn < k:
        # A chunk never crosses k/2, so that the first half is exactly the estimate at k/2.
        stop = half if drawn < half else k
        samples = min(SAMPLES_AT_ONCE, stop - drawn)
        draws, log_ratios = [], []
        for rows in blocks(samples, DRAWN_AT_ONCE):
            noise = torch.randn((rows.stop - rows.start, len(x), model.latent_size), generator=noise_of)
            z = posterior.sample(noise.to(x.device))
            log_prior = model.prior.log_density(z, condition, model.encode_alone)
            log_ratios.append(log_prior - posterior.log_density(z))
            draws.append(z)
        log_weight = torch.cat(log_ratios).double() - nll(torch.cat(draws), condition, x).double()
        total = torch.logaddexp(total, torch.logsumexp(log_weight, dim=0))
        drawn += samples
        if drawn == half:
            at_half = total
    return torch.stack([at_half - math.log(half), total - math.log(k)])


def blocks(count: int, size: int) -> Iterator[slice]:
    """Yield slices of ``size`` that cover 0..``count``. The last one may be shorter."""
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))

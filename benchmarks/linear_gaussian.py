"""The linear-Gaussian VAE against its closed form, probabilistic PCA. Prints a table; exit code 1 if it fails.

    python benchmarks/linear_gaussian.py

With affine maps and one learned variance the VAE's model is probabilistic PCA's (Tipping & Bishop 1999,
J. R. Stat. Soc. B 61(3), 611-622), and its bound touches the likelihood at the maximum (Lucas et al. 2019,
arXiv:1911.02469). So training must come close to the closed form, and nothing may lie above it. The bound is
judged by its exact expectation in float64, not by sampled z; trained and evaluated on the same rows.
"""

from __future__ import annotations

import dataclasses
import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from vae.data import load_training
from vae.data.pixels import pixels_of
from vae.distributions import kl_to_standard_normal
from vae.evaluate import evaluate, importance_weighted_nll
from vae.measure import measure_of
from vae.serialization import from_json
from vae.train import train

if TYPE_CHECKING:
    from vae.data import TrainingData
    from vae.likelihoods.gaussian import GaussianLikelihood
    from vae.model import VAE
    from vae.networks.mlp import MlpDecoder
    from vae.train_config import TrainConfig

PROTOCOL = Path(__file__).parents[1] / "docs" / "protocols" / "linear-gaussian-digits.json"
GAP_AT_TWO = 0.5  # nats: how close training must come at two latents
ROUNDING = 1e-9  # nats: what float64 may put a bound above the closed form


def ppca_log_likelihood(x: Tensor, latent_size: int) -> float:
    """The largest log-likelihood of probabilistic PCA on rows x [N, D], in nats per example.

    −½ (Σ_{j≤q} log λ_j + (D − q) log σ² + D + D log 2π), λ_j the eigenvalues of the covariance
    (divided by N), σ² the mean of those beyond the q largest (Tipping & Bishop 1999, eqs. 4, 7, 8).
    """
    dimensions = x.shape[1]
    eigenvalues = torch.linalg.eigvalsh(torch.cov(x.double().T, correction=0)).flip(0)
    kept, rest = eigenvalues[:latent_size], eigenvalues[latent_size:]
    log_determinant = kept.log().sum() + len(rest) * rest.mean().log()
    return -0.5 * (float(log_determinant) + dimensions * (1 + math.log(2 * math.pi)))


@dataclass(frozen=True)
class Affine:
    """The decoder p(x|z) = N(W z + b, σ² I) of a linear-Gaussian model, in float64."""

    weight: Tensor  # W [D, L]
    bias: Tensor  # b [D]
    log_variance: Tensor  # log σ², the floor applied

    @classmethod
    def of(cls, model: VAE) -> Affine:
        """What ``model`` decodes with."""
        layer = cast("Any", cast("MlpDecoder", model.decoder).affine[-1])
        likelihood = cast("GaussianLikelihood", model.likelihood)
        return cls(
            weight=layer.weight.detach().double(),
            bias=layer.bias.detach().double(),
            log_variance=likelihood.log_variance.detach().double().clamp(min=likelihood.floor),
        )


@torch.no_grad()
def exact_elbo(model: VAE, x: Tensor) -> float:
    """The bound of a linear-Gaussian model on rows x [N, D], nats per example, with nothing sampled.

    E_q‖x − Wz − b‖² = ‖x − Wμ − b‖² + Σ_j σ_j² ‖W_j‖² for q = N(μ, diag σ²).
    """
    affine = Affine.of(model)
    encoder = cast("Any", model.encoder).affine[-1]
    x = x.double()
    mean, log_variance = (x @ encoder.weight.double().T + encoder.bias.double()).chunk(2, dim=1)
    residual = (x - mean @ affine.weight.T - affine.bias).square().sum(1)
    spread = log_variance.exp() @ affine.weight.square().sum(0)
    constant = x.shape[1] * (affine.log_variance + math.log(2 * math.pi))
    reconstruction = 0.5 * ((residual + spread) * torch.exp(-affine.log_variance) + constant)
    kl = kl_to_standard_normal(mean, log_variance).sum(1)
    return -float((reconstruction + kl).mean())


def exact_log_likelihood(model: VAE, x: Tensor) -> Tensor:
    """log p(x) of a linear-Gaussian model, [N] nats: x ~ N(b, W Wᵀ + σ² I)."""
    affine = Affine.of(model)
    covariance = affine.weight @ affine.weight.T + affine.log_variance.exp() * torch.eye(x.shape[1])
    distribution = torch.distributions.MultivariateNormal(affine.bias, covariance)
    return cast("Tensor", distribution.log_prob(x.double()))


def trained(config: TrainConfig, data: TrainingData) -> VAE:
    """The model after the last epoch of ``config``."""
    *_, last = train(config, data)
    assert last.diverged is None, last.diverged
    return last.model


def main() -> int:
    """Train at several numbers of latents, print the table, return the exit code."""
    torch.set_num_threads(1)
    config = from_json(PROTOCOL.read_text(encoding="utf-8"))
    data = load_training(config.data, None)
    pixels = pixels_of(data.train, config, data.levels, torch.device("cpu"), held_out=True)
    x = pixels.batch(slice(None))
    measure = measure_of(config, data.train, levels=data.levels)
    print(f"{len(x)} rows of the digits in [0, 1], {x.shape[1]} dimensions; nats per example, higher is better")
    print("latents  seed  closed form   exact elbo       gap   log p(x)   sampled: elbo  -nll_iwae  seconds")
    failed = []
    for latents, seed in ((1, 0), (2, 0), (2, 1), (2, 2), (5, 0)):
        started = time.perf_counter()
        model = trained(dataclasses.replace(config, latent_size=latents, seed=seed), data)
        best, elbo = ppca_log_likelihood(x, latents), exact_elbo(model, x)
        log_likelihood = exact_log_likelihood(model, x)
        settings = dataclasses.replace(config.eval, samples=50)
        sampled = cast("float", evaluate(model, pixels, settings, measure)["elbo"])
        estimate = importance_weighted_nll(model, pixels, k=500, images=200, seed=0, split="train")
        of_same_images = log_likelihood[pixels.subset(200)].mean().item()
        seconds = time.perf_counter() - started
        print(
            f"{latents:7}  {seed:4}  {best:11.4f}  {elbo:11.4f}  {best - elbo:8.4f}  "
            f"{log_likelihood.mean():9.4f}  {sampled - elbo:+14.4f}  {-estimate.nll - of_same_images:+9.4f}  "
            f"{seconds:7.1f}"
        )
        if elbo > best + ROUNDING:
            failed.append(f"{latents} latents, seed {seed}: the bound {elbo} is above the closed form {best}")
        if latents == 2 and best - elbo > GAP_AT_TWO:
            failed.append(f"{latents} latents, seed {seed}: {best - elbo:.3f} nats short, {GAP_AT_TWO} allowed")
    print("the last two figures are differences: sampled minus exact")
    for line in failed:
        print(f"FAILED: {line}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

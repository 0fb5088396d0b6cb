"""The family of bounds on linear-Gaussian models, where log p(x), the best posterior and every gap are known."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import pytest
import torch
from torch.distributions import MultivariateNormal

from tests.support.affine import affine
from tests.support.small import held_out, noise_images, small_config
from vae.evaluate import evaluate, importance_weighted_nll
from vae.likelihoods import Gaussian
from vae.measure import measure_of
from vae.model import VAE
from vae.networks import Mlp
from vae.objectives import Elbo, Iwae
from vae.objectives.loss import Batch, Progress
from vae.posteriors import DiagonalGaussian, FullCovariance
from vae.train_config import Evaluation

LATENT, DIMENSIONS, VARIANCE, EXAMPLES = 3, 6, 0.05, 20
POSTERIORS = {"diagonal": DiagonalGaussian(), "full": FullCovariance()}
BOTH = pytest.mark.parametrize("kind", POSTERIORS)


@dataclass(frozen=True)
class Correlated:
    """x = W z + b + s·ε with the columns of W far from orthogonal, so that the true posterior is correlated."""

    model: VAE
    pixels: object
    measure: object
    x: torch.Tensor
    log_p: torch.Tensor  # [N], log p(x)
    gap: float  # of the best posterior of the family: 0, or KL(best diagonal ‖ true)


@torch.no_grad()
def correlated(kind):
    """The model with the best posterior of ``kind``, by hand."""
    data = noise_images((1, 2, 3), train=2, validation=EXAMPLES)
    config = small_config(
        network=Mlp(hidden=()),
        latent_size=LATENT,
        likelihood=Gaussian(variance=VARIANCE),
        posterior=POSTERIORS[kind],
    )
    model = VAE(config, shape=(1, 2, 3), levels=data.levels, num_classes=1)
    generator = torch.Generator().manual_seed(4)
    w = 0.3 * torch.randn((DIMENSIONS, LATENT), generator=generator, dtype=torch.float64)
    w[:, 1] += 0.8 * w[:, 0]
    b = 0.5 + 0.1 * torch.randn(DIMENSIONS, generator=generator, dtype=torch.float64)
    precision = torch.eye(LATENT) + w.T @ w / VARIANCE
    covariance = torch.linalg.inv(precision)
    to_mean = covariance @ w.T / VARIANCE
    encoder, decoder = model.encoder.affine[-1], model.decoder.affine[-1]
    encoder.weight.zero_()
    encoder.bias.zero_()
    encoder.weight[:LATENT] = to_mean
    encoder.bias[:LATENT] = -to_mean @ b
    if kind == "full":
        triangle = torch.linalg.cholesky(covariance)
        rows, columns = torch.tril_indices(LATENT, LATENT, offset=-1)
        encoder.bias[LATENT : 2 * LATENT] = triangle.diagonal().log()
        encoder.bias[2 * LATENT :] = triangle[rows, columns]
        gap = 0.0
    else:
        # KL(N(m, D) ‖ N(m, Λ⁻¹)) is least at D_dd = 1/Λ_dd, and is then ½ (Σ log Λ_dd − log det Λ).
        encoder.bias[LATENT:] = -precision.diagonal().log()
        gap = 0.5 * (precision.diagonal().log().sum() - torch.logdet(precision)).item()
    decoder.weight.copy_(w)
    decoder.bias.copy_(b)
    pixels = held_out(config, data)
    x = pixels.batch(slice(None))
    p = MultivariateNormal(b, w @ w.T + VARIANCE * torch.eye(DIMENSIONS))
    measure = measure_of(config, data.validation, levels=data.levels)
    return Correlated(model, pixels, measure, x, p.log_prob(x.double()), gap)


@torch.no_grad()
def exact_elbo(model, x):
    """The ELBO's exact expectation, [N]: ±√L e_d have mean 0 and covariance I, and −log p(x|z) is quadratic in z."""
    points = math.sqrt(model.latent_size) * torch.eye(model.latent_size)
    noise = torch.cat([points, -points]).unsqueeze(1).expand(-1, len(x), -1)
    terms = model.terms(x, None, noise)
    return -(terms.reconstruction.double().mean(0) + terms.kl.double().sum(1))


def test_the_exact_elbo_is_that_of_torch():
    """The sigma points give the closed form that the affine model was derived with."""
    exact = affine(error=1.0)
    x = exact.pixels.batch(slice(None))
    assert torch.allclose(exact.elbo, exact_elbo(exact.model, x), atol=1e-3)


def test_a_full_covariance_closes_the_gap():
    """With the true posterior, correlations included, the ELBO is log p(x), example by example."""
    exact = correlated("full")
    assert torch.allclose(exact.log_p, exact_elbo(exact.model, exact.x), atol=1e-3)


def test_the_best_diagonal_leaves_the_analytic_gap():
    """The gap of the best diagonal is ½ (Σ log Λ_dd − log det Λ), more than a fifth of a nat here."""
    exact = correlated("diagonal")
    assert exact.gap > 0.2
    assert torch.allclose(exact.log_p - exact.gap, exact_elbo(exact.model, exact.x), atol=1e-3)


@BOTH
def test_no_other_posterior_of_the_family_is_better(kind):
    """Around the best the bound only falls, whichever way the encoder is moved; for the full one below log p(x)."""
    exact = correlated(kind)
    best = exact_elbo(exact.model, exact.x).mean().item()
    parameters = list(exact.model.encoder.parameters())
    start = torch.nn.utils.parameters_to_vector(parameters).detach()
    generator = torch.Generator().manual_seed(1)
    for size in (0.01, 0.05, 0.2) * 5:
        moved = start + size * torch.randn(start.shape, generator=generator)
        torch.nn.utils.vector_to_parameters(moved, parameters)
        assert exact_elbo(exact.model, exact.x).mean().item() < best


def test_training_a_full_covariance_passes_every_diagonal():
    """From the best diagonal's place, the encoder of a full covariance is trained past what a diagonal can reach."""
    exact = correlated("full")
    diagonal = correlated("diagonal")
    with torch.no_grad():
        exact.model.encoder.affine[-1].bias[2 * LATENT :] = 0
        exact.model.encoder.affine[-1].bias[LATENT : 2 * LATENT] = 0.5 * diagonal.model.encoder.affine[-1].bias[LATENT:]
    start = exact_elbo(exact.model, exact.x).mean().item()
    assert start == pytest.approx((diagonal.log_p - diagonal.gap).mean().item(), abs=1e-3)
    optimizer = torch.optim.Adam(exact.model.encoder.parameters(), lr=0.01)
    generator = torch.Generator().manual_seed(2)
    for _ in range(150):
        noise = torch.randn((4, EXAMPLES, LATENT), generator=generator)
        optimizer.zero_grad()
        terms = exact.model.terms(exact.x, None, torch.cat([noise, -noise]))
        (Elbo().loss(Batch(exact.model, terms, None, Progress(0, 1, 1), EXAMPLES)).total).backward()
        optimizer.step()
    end = exact_elbo(exact.model, exact.x).mean().item()
    assert start + 0.7 * diagonal.gap < end < exact.log_p.mean().item() + 1e-3


@BOTH
def test_evaluation_agrees_with_the_exact_elbo(kind):
    """A row's ELBO is its exact expectation within 4 standard errors over evaluation seeds."""
    exact = correlated(kind)
    found = torch.tensor(
        [evaluate(exact.model, exact.pixels, Evaluation(seed=s, samples=10), exact.measure)["elbo"] for s in range(24)]
    )
    error = found.std().item() / math.sqrt(len(found))
    assert abs(found.mean().item() - (exact.log_p.mean().item() - exact.gap)) < 4 * error


def test_one_importance_sample_of_the_true_full_posterior_is_exact():
    """Each weight is p(x) itself: one sample gives log p(x), and its spread over examples is that of log p(x)."""
    exact = correlated("full")
    estimate = importance_weighted_nll(exact.model, exact.pixels, k=1, images=EXAMPLES, seed=0, split="validation")
    assert estimate.nll == pytest.approx(-exact.log_p.mean().item(), abs=1e-3)
    assert estimate.standard_error == pytest.approx(exact.log_p.std().item() / math.sqrt(EXAMPLES), abs=1e-3)


@torch.no_grad()
@pytest.mark.parametrize("doubly", [False, True])
@pytest.mark.parametrize("make", [lambda: affine(error=1.0), lambda: correlated("diagonal")], ids=["wrong", "best"])
def test_the_iwae_objective_rises_with_k_to_log_p(make, doubly):
    """ELBO = IWAE₁ ≤ IWAE₂ ≤ IWAE₅ ≤ IWAE₂₀ ≤ log p(x) in expectation, for the loss that is trained with."""
    exact = make()
    x = exact.pixels.batch(slice(None))
    log_p = exact.log_p.mean().item()
    elbo = exact_elbo(exact.model, x).mean().item()
    before, before_error = elbo, 0.0
    generator = torch.Generator().manual_seed(6)
    for k in (1, 2, 5, 20):
        objective, values = Iwae(k=k, doubly_reparameterised=doubly), []
        for _ in range(100):
            noise = torch.randn((k, len(x), exact.model.latent_size), generator=generator)
            terms = exact.model.terms(x, None, noise)
            # Only the plain loss has no gradient to change, and can be asked for without one.
            if doubly:
                terms.z.requires_grad_()
            batch = Batch(exact.model, terms, None, Progress(0, 1, 1), len(x))
            values.append(-objective.loss(batch).total.item())
        mean = sum(values) / len(values)
        error = torch.tensor(values).double().std().item() / math.sqrt(len(values))
        assert error < 0.2
        if k == 1:
            assert abs(mean - elbo) < 4 * error
        else:
            assert mean > before + 2 * math.hypot(error, before_error)
        assert mean < log_p + 4 * error
        before, before_error = mean, error
    assert log_p - before < 0.5 * (log_p - elbo)


def test_the_doubly_reparameterised_gradient_of_a_full_covariance_vanishes_at_the_truth():
    """All k weights are equal there, and what reaches the encoder is 0, which the plain estimate is not."""
    exact = correlated("full")
    largest = {}
    for doubly in (False, True):
        objective = Iwae(k=5, doubly_reparameterised=doubly)
        noise = torch.randn((5, EXAMPLES, LATENT), generator=torch.Generator().manual_seed(3))
        exact.model.zero_grad()
        batch = Batch(exact.model, exact.model.terms(exact.x, None, noise), None, Progress(0, 1, 1), EXAMPLES)
        objective.loss(batch).total.backward()
        largest[doubly] = max(p.grad.abs().max().item() for p in exact.model.encoder.parameters())
    assert largest[True] < 1e-2
    assert largest[False] > 10 * largest[True]


@BOTH
def test_per_dimension_kl_of_a_row_sums_to_the_whole(kind):
    """kl_per_dimension has one number for each latent, none negative, whose sum is kl."""
    exact = correlated(kind)
    scores = evaluate(exact.model, exact.pixels, dataclasses.replace(Evaluation(), samples=2), exact.measure)
    assert len(scores["kl_per_dimension"]) == LATENT
    assert min(scores["kl_per_dimension"]) >= 0
    assert scores["kl"] == math.fsum(scores["kl_per_dimension"])

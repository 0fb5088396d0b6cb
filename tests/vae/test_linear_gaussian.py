"""The one VAE whose likelihood is known in closed form: affine maps, Gaussian pixels, probabilistic PCA."""

from __future__ import annotations

import dataclasses
import importlib.util
import sys

import pytest
import torch

from tests.support.places import ROOT
from vae.data import load_training
from vae.data.pixels import pixels_of
from vae.serialization import from_json
from vae.train import build

_SPEC = importlib.util.spec_from_file_location("linear_gaussian", ROOT / "benchmarks" / "linear_gaussian.py")
assert _SPEC is not None
assert _SPEC.loader is not None
exact = importlib.util.module_from_spec(_SPEC)
sys.modules["linear_gaussian"] = exact  # dataclasses look their module up
_SPEC.loader.exec_module(exact)


@pytest.fixture(scope="module")
def config():
    """The published protocol: two latents, trained and scored on the same rows."""
    return from_json(exact.PROTOCOL.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def data(config):
    """All the digits that may train."""
    return load_training(config.data, None)


@pytest.fixture(scope="module")
def x(config, data):
    """The rows as the model sees them, [N, D]."""
    return pixels_of(data.train, config, data.levels, torch.device("cpu"), held_out=True).batch(slice(None))


@pytest.fixture
def solved(config, data, x):
    """The model with probabilistic PCA's maximum-likelihood weights and its exact posterior, by hand."""
    model = build(config, data)
    rows, latents = x.double(), config.latent_size
    eigenvalues, vectors = torch.linalg.eigh(torch.cov(rows.T, correction=0))
    variance = eigenvalues[:-latents].mean()
    eigenvalues, vectors = eigenvalues[-latents:], vectors[:, -latents:]
    scale = (eigenvalues - variance).sqrt()
    # Tipping & Bishop 1999: W = U (Λ − σ²I)^½, posterior precision M/σ² with M = WᵀW + σ²I = Λ, so diagonal.
    to_mean = (vectors * scale / eigenvalues).T
    encoder, decoder = model.encoder.affine[-1], model.decoder.affine[-1]
    with torch.no_grad():
        encoder.weight.zero_()
        encoder.weight[:latents] = to_mean
        encoder.bias[:latents] = -to_mean @ rows.mean(0)
        encoder.bias[latents:] = (variance / eigenvalues).log()
        decoder.weight.copy_(vectors * scale)
        decoder.bias.copy_(rows.mean(0))
        model.likelihood.log_variance.copy_(variance.log())
    return model


def test_the_closed_form_is_the_likelihood_of_the_maximum(solved, config, x):
    """The eigenvalue formula equals the multivariate normal's log density at the weights that it is for."""
    best = exact.ppca_log_likelihood(x, config.latent_size)
    assert exact.exact_log_likelihood(solved, x).mean().item() == pytest.approx(best, abs=1e-6)


def test_the_bound_touches_the_likelihood_where_the_posterior_is_exact(solved, config, x):
    """At the maximum the exact expectation of the ELBO is the closed form: no constant is amiss."""
    best = exact.ppca_log_likelihood(x, config.latent_size)
    assert exact.exact_elbo(solved, x) == pytest.approx(best, abs=1e-6)


def test_no_other_weights_give_a_bound_above_the_closed_form(solved, config, x):
    """Around the maximum, near and far, the bound only falls."""
    best = exact.ppca_log_likelihood(x, config.latent_size)
    weights = torch.nn.utils.parameters_to_vector(solved.parameters()).detach()
    torch.manual_seed(0)
    for size in (1e-3, 1e-2, 1e-1) * 10:
        moved = weights + size * torch.randn_like(weights)
        torch.nn.utils.vector_to_parameters(moved, solved.parameters())
        assert exact.exact_elbo(solved, x) < best


def test_training_approaches_the_closed_form_from_below(config, data, x):
    """A short run ends below the closed form and above what it started from."""
    short = dataclasses.replace(config, epochs=3)
    start = exact.exact_elbo(build(short, data), x)
    end = exact.exact_elbo(exact.trained(short, data), x)
    assert start < end <= exact.ppca_log_likelihood(x, short.latent_size) + exact.ROUNDING


@pytest.mark.slow
def test_training_ends_within_half_a_nat_of_the_closed_form(config, data, x):
    """The published protocol reaches the closed form to half a nat, and never passes it."""
    best = exact.ppca_log_likelihood(x, config.latent_size)
    elbo = exact.exact_elbo(exact.trained(config, data), x)
    assert best - exact.GAP_AT_TWO <= elbo <= best + exact.ROUNDING

"""Densities and divergences against torch.distributions and against draws."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributions import Normal, kl_divergence

from vae.distributions import kl_between_normals, kl_to_standard_normal, log_normal, sample_normal

number = st.floats(-5, 5)


def tensor(*values):
    """Double precision, so that formulas are compared and not roundings."""
    return torch.tensor(values, dtype=torch.float64)


def normal(mean, log_variance):
    """The same distribution as torch knows it."""
    return Normal(mean, torch.exp(0.5 * log_variance))


@given(mean=number, log_variance=number)
def test_kl_to_standard_normal(mean, log_variance):
    """The closed form equals torch.distributions', and is not negative but for rounding."""
    mean, log_variance = tensor(mean), tensor(log_variance)
    expected = kl_divergence(normal(mean, log_variance), Normal(tensor(0.0), tensor(1.0)))
    kl = kl_to_standard_normal(mean, log_variance)
    assert torch.allclose(expected, kl, rtol=1e-9, atol=1e-12)
    assert (kl >= -1e-15).all()


@given(mean=number, log_variance=number, prior_mean=number, prior_log_variance=number)
def test_kl_between_normals(mean, log_variance, prior_mean, prior_log_variance):
    """The closed form equals torch.distributions'; the standard normal is its special case."""
    q, p = (tensor(mean), tensor(log_variance)), (tensor(prior_mean), tensor(prior_log_variance))
    assert torch.allclose(kl_divergence(normal(*q), normal(*p)), kl_between_normals(*q, *p), rtol=1e-9, atol=1e-9)
    zero = tensor(0.0)
    assert torch.allclose(kl_to_standard_normal(*q), kl_between_normals(*q, zero, zero), rtol=1e-12, atol=1e-12)


@given(mean=number, log_variance=number)
def test_kl_of_a_distribution_to_itself_is_zero(mean, log_variance):
    """KL(q ‖ q) = 0."""
    q = tensor(mean), tensor(log_variance)
    assert torch.allclose(tensor(0.0), kl_between_normals(*q, *q), atol=1e-12)


@pytest.mark.parametrize(
    ("q", "p"),
    [
        ((0.7, -1.0), (0.0, 0.0)),
        ((-2.0, 0.5), (0.0, 0.0)),
        ((0.5, -0.5), (1.5, 0.3)),
        ((0.0, 0.2), (0.1, -0.4)),
    ],
    ids=str,
)
def test_kl_is_the_mean_log_ratio_of_draws(q, p):
    """E_q[log q − log p] over 200,000 draws lies within 4 standard errors of the closed form."""
    q, p = (tensor(q[0]), tensor(q[1])), (tensor(p[0]), tensor(p[1]))
    noise = torch.randn(200_000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    z = sample_normal(*q, noise)
    ratio = log_normal(z, *q) - log_normal(z, *p)
    error = ratio.std() / math.sqrt(len(ratio))
    assert (ratio.mean() - kl_between_normals(*q, *p)).abs() < 4 * error
    if p == (tensor(0.0), tensor(0.0)):
        assert (ratio.mean() - kl_to_standard_normal(*q)).abs() < 4 * error


@given(z=number, mean=number, log_variance=number)
def test_log_normal(z, mean, log_variance):
    """The log density equals torch.distributions', constants included."""
    z, mean, log_variance = tensor(z), tensor(mean), tensor(log_variance)
    expected = normal(mean, log_variance).log_prob(z)
    assert torch.allclose(expected, log_normal(z, mean, log_variance), rtol=1e-9, atol=1e-9)


def test_samples_are_reparameterised():
    """z = μ + σ·ε exactly, so the gradients reach μ and log σ²."""
    mean = tensor(1.0, -2.0).requires_grad_()
    log_variance = tensor(math.log(4.0), math.log(0.25)).requires_grad_()
    z = sample_normal(mean, log_variance, tensor(3.0, -1.0))
    assert z.tolist() == pytest.approx([1 + 2 * 3, -2 - 0.5])
    z.sum().backward()
    assert mean.grad.tolist() == [1.0, 1.0]
    assert log_variance.grad.tolist() == pytest.approx([0.5 * 2 * 3, 0.5 * 0.5 * -1])

"""Diagonal Gaussians: log densities, closed-form KL divergences and reparameterised samples.

``log_variance`` is always log σ², so σ = exp(½ log_variance). All functions work by dimension, and broadcast.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def sample_normal(mean: Tensor, log_variance: Tensor, noise: Tensor) -> Tensor:
    """Return z = μ + σ·ε, the reparameterisation of Kingma & Welling 2014 (arXiv:1312.6114, eq. 10)."""
    return mean + torch.exp(0.5 * log_variance) * noise


def kl_to_standard_normal(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return KL(N(μ, σ²) ‖ N(0, 1)) for each dimension, in nats (Kingma & Welling 2014, appendix B).

    It is ½ (μ² + σ² − 1 − log σ²), in the shape of ``mean``. Computed with expm1, it is exact for σ near 1.
    """
    return 0.5 * torch.addcmul(torch.expm1(log_variance) - log_variance, mean, mean)


def kl_between_normals(mean: Tensor, log_variance: Tensor, prior_mean: Tensor, prior_log_variance: Tensor) -> Tensor:
    """Return KL(N(μ, σ²) ‖ N(m, s²)) for each dimension, in nats: ½ (log s²/σ² + (σ² + (μ − m)²)/s² − 1)."""
    log_ratio = log_variance - prior_log_variance
    distance = (mean - prior_mean).square() * torch.exp(-prior_log_variance)
    return 0.5 * (torch.exp(log_ratio) + distance - 1.0 - log_ratio)


def log_normal(z: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return log N(z; μ, σ²) for each dimension, in nats."""
    return -0.5 * ((z - mean).square() * torch.exp(-log_variance) + log_variance + math.log(2 * math.pi))

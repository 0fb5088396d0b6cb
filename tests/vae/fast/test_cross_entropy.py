"""Sums over dimensions that take one logarithm for sixteen probabilities equal the plain sums."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from vae.fast.cross_entropy import nll_of_seen
from vae.fast.many_samples import summed_nll
from vae.likelihoods import Bernoulli, Binomial, Categorical, ContinuousBernoulli, Gaussian, Laplace
from vae.likelihoods.bernoulli import BernoulliLikelihood

DIMENSIONS = pytest.mark.parametrize("dimensions", [1, 15, 16, 17, 65, 784])


@pytest.mark.parametrize("config", [Bernoulli(), Binomial()], ids=lambda config: config.kind)
@DIMENSIONS
@pytest.mark.parametrize("size", [0.1, 3.0, 80.0, 1e12])
def test_summed_nll_of_any_outputs_equals_the_sum_over_dimensions(config, dimensions, size):
    """It agrees to 1e-6 for certain and uncertain outputs, and for all x in [0, 1]."""
    draw = torch.Generator().manual_seed(dimensions)
    likelihood = config.build(levels=16)
    output = size * torch.randn((7, 3, dimensions * likelihood.outputs_per_dimension), generator=draw)
    x = torch.randint(0, 17, (3, dimensions), generator=draw) / 16
    x = torch.where(torch.rand(x.shape, generator=draw) < 0.8, x.round(), x)
    by_dimension = likelihood.double().nll(output.flatten(0, 1).double(), x.double().repeat(7, 1))
    expected = by_dimension.sum(1).view(7, 3).float()
    found = summed_nll(likelihood.float(), output, x)
    assert torch.allclose(found, expected, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("config", [Categorical(), ContinuousBernoulli(), Gaussian(), Laplace()])
def test_summed_nll_of_other_likelihoods_is_none(config):
    """A likelihood without a faster form is scored by its own ``nll``."""
    assert summed_nll(config.build(levels=16), torch.zeros(1, 1, 4), torch.zeros(1, 4)) is None


def test_summed_nll_of_a_subclass_is_none():
    """A user's subclass may score pixels in another way, so its own ``nll`` is used."""

    class Own(BernoulliLikelihood):
        """A user's own likelihood."""

    assert summed_nll(Own(), torch.zeros(1, 1, 4), torch.zeros(1, 4)) is None


@DIMENSIONS
@pytest.mark.parametrize("size", [0.1, 3.0])
def test_nll_of_seen_of_any_logits_equals_the_sum_over_dimensions(dimensions, size):
    """−Σ log σ(l) agrees to 1e-6."""
    logits = size * torch.randn((7, dimensions), generator=torch.Generator().manual_seed(dimensions))
    expected = -functional.logsigmoid(logits.double()).sum(1).float()
    assert torch.allclose(nll_of_seen(logits), expected, rtol=1e-6, atol=1e-5)


def test_nll_of_seen_when_a_product_loses_digits_is_none():
    """Products down to the smallest normal float are used, and NaN stays NaN."""
    smallest = math.log(torch.finfo(torch.float32).tiny) / 16
    held, lost = (torch.full((1, 16), -math.log(math.expm1(-each))) for each in (smallest + 0.01, smallest - 0.01))
    assert nll_of_seen(held).item() == pytest.approx(-16 * (smallest + 0.01), rel=1e-6)
    assert nll_of_seen(lost) is None
    assert nll_of_seen(torch.tensor([[math.nan, 0.0]])).isnan()

"""Likelihoods: normalised, in nats, all constants in place; means and output biases that fit them."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch.distributions import Bernoulli as TorchBernoulli
from torch.distributions import Binomial as TorchBinomial
from torch.distributions import Normal

from vae.data import Mnist, load_test
from vae.likelihoods import Bernoulli, Binomial, Gaussian

LOGITS = torch.tensor([[-3.0, 0.0, 0.4, 7.0]])


def test_bernoulli_sums_to_one():
    """Over all 2⁴ images of 4 pixels the probabilities sum to one."""
    images = torch.tensor(list(itertools.product([0.0, 1.0], repeat=4)))
    nll = Bernoulli().build(levels=255).nll(LOGITS.expand(16, -1), images).sum(1)
    assert torch.exp(-nll.double()).sum().item() == pytest.approx(1, abs=1e-6)


def test_bernoulli_is_torchs():
    """log p equals torch.distributions' Bernoulli, summed over pixels."""
    x = torch.tensor([[1.0, 0.0, 1.0, 0.0]])
    expected = -TorchBernoulli(logits=LOGITS).log_prob(x).sum()
    assert Bernoulli().build(levels=1).nll(LOGITS, x).sum(1).item() == pytest.approx(expected.item())


def test_bernoulli_on_grey_pixels_is_the_expectation_over_binarisations():
    """Cross-entropy on x in [0, 1] is the mean score of the image's binarisations, and not normalised."""
    likelihood = Bernoulli().build(levels=255)
    grey = torch.tensor([[0.2, 0.5, 0.9, 1.0]])
    images = torch.tensor(list(itertools.product([0.0, 1.0], repeat=4)))
    weight = torch.where(images == 1, grey, 1 - grey).prod(1)
    expected = (weight * likelihood.nll(LOGITS.expand(16, -1), images).sum(1)).sum()
    assert likelihood.nll(LOGITS, grey).sum(1).item() == pytest.approx(expected.item(), rel=1e-5)
    levels = torch.arange(256.0)[:, None] / 255
    total = torch.exp(-likelihood.nll(torch.zeros(256, 1), levels).sum(1)).sum()
    assert total.item() == pytest.approx(128, rel=1e-4)


def test_grey_mnist_cannot_be_scored_below_its_own_entropy(mnist_dir):
    """No model of ``binarisation: expected`` gets below 45.53 nats on MNIST's test images: their pixels' entropy."""
    x = load_test(Mnist(binarisation="expected"), mnist_dir).images.flatten(1).float() / 255
    best = torch.logit(x.clamp(1e-7, 1 - 1e-7))
    floor = Bernoulli().build(levels=255).nll(best, x).sum(1).mean().item()
    assert floor == pytest.approx(45.53, abs=0.01)


@pytest.mark.parametrize("n", [1, 16, 255])
def test_binomial_sums_to_one(n):
    """Over the counts 0..n the probabilities sum to one, for likely and for extreme logits."""
    likelihood = Binomial().build(levels=n)
    counts = torch.arange(n + 1.0)[:, None] / n
    for logit in (-12.0, -3.0, 0.0, 0.4, 7.0):
        nll = likelihood.nll(torch.full((n + 1, 1), logit), counts).sum(1)
        assert torch.exp(-nll.double()).sum().item() == pytest.approx(1, abs=2e-4)


@pytest.mark.parametrize("n", [16, 255])
def test_binomial_sums_over_pixels(n):
    """The probability of two pixels is the product of each one's: all (n + 1)² images sum to one."""
    likelihood = Binomial().build(levels=n)
    images = torch.cartesian_prod(torch.arange(n + 1.0), torch.arange(n + 1.0)) / n
    nll = likelihood.nll(torch.tensor([[0.7, -1.5]]).expand(len(images), -1), images).sum(1)
    assert torch.exp(-nll.double()).sum().item() == pytest.approx(1, abs=2e-4)


@pytest.mark.parametrize("n", [16, 49, 255])  # 1/49 · 49 is below 1 in float32
def test_binomial_is_torchs(n):
    """log p equals torch.distributions' Binomial for every count that a pixel can have."""
    counts = torch.arange(n + 1.0)[:, None]
    logits = torch.full((n + 1, 1), -0.8)
    expected = -TorchBinomial(n, logits=logits.double()).log_prob(counts.double()).squeeze(1)
    nll = Binomial().build(levels=n).nll(logits, counts / n).sum(1)
    assert torch.allclose(expected, nll.double(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("learned", ["none", "shared"])
@pytest.mark.parametrize("variance", [1.0, 0.05, 1e-3])
def test_gaussian_integrates_to_one(variance, learned):
    """By quadrature over 12 standard deviations each way."""
    likelihood = Gaussian(variance=variance, learned=learned).build(levels=255)
    sigma = math.sqrt(variance)
    x = torch.linspace(0.3 - 12 * sigma, 0.3 + 12 * sigma, 4001)[:, None]
    with torch.no_grad():
        density = torch.exp(-likelihood.nll(torch.full_like(x, 0.3), x).sum(1)).double()
    assert torch.trapezoid(density, x.squeeze(1).double()).item() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("learned", ["none", "shared"])
def test_gaussian_is_torchs(learned):
    """log p equals torch.distributions' Normal, summed over pixels; it may be above zero."""
    likelihood = Gaussian(variance=0.01, learned=learned).build(levels=255)
    x, mean = torch.tensor([[0.2, 0.5]]), torch.tensor([[0.25, 0.4]])
    expected = -Normal(mean, 0.1).log_prob(x).sum().item()
    assert expected < 0
    assert likelihood.nll(mean, x).sum(1).item() == pytest.approx(expected, rel=1e-4)


def test_a_learned_variance_moves_and_stops_at_its_floor():
    """A learned σ has a gradient above its floor; below it the density no longer grows."""
    x = torch.full((1, 8), 0.5)
    above = Gaussian(variance=0.01, learned="shared").build(levels=255)
    above.nll(x, x).sum().backward()
    assert above.log_variance.grad.item() == pytest.approx(4)  # D/2: a perfect fit asks for a smaller σ
    at_floor = Gaussian(variance=(1 / 256) ** 2, learned="shared").build(levels=255)
    below = Gaussian(variance=1e-9, learned="shared").build(levels=255)
    assert below.nll(x, x).sum(1).item() == pytest.approx(at_floor.nll(x, x).sum(1).item(), rel=1e-5)
    wider = Gaussian(variance=1e-9, learned="shared", floor=0.1).build(levels=255)
    expected = -Normal(0.5, 0.1).log_prob(torch.tensor(0.5)).item() * 8
    assert wider.nll(x, x).sum(1).item() == pytest.approx(expected, rel=1e-5)


def test_only_a_learned_variance_is_trained():
    """A fixed variance is no parameter, and its floor does not touch it."""
    fixed = Gaussian(variance=1e-9).build(levels=255)
    assert list(fixed.parameters()) == []
    assert len(list(Gaussian(learned="shared").build(levels=255).parameters())) == 1
    x = torch.full((1, 1), 0.5)
    expected = -Normal(0.5, math.sqrt(1e-9)).log_prob(torch.tensor(0.5)).item()
    assert fixed.nll(x, x).sum(1).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("config", [Bernoulli(), Binomial(), Gaussian()], ids=lambda config: config.kind)
def test_the_output_bias_predicts_the_mean(config):
    """``mean(output_bias(m)) = m``, clipped only at the ends."""
    likelihood = config.build(levels=16)
    mean = torch.tensor([[0.01, 0.3, 0.5, 0.98]])
    assert torch.allclose(mean, likelihood.mean(likelihood.output_bias(mean)), atol=1e-6)
    ends = likelihood.output_bias(torch.tensor([0.0, 1.0]))
    assert ends.isfinite().all()


@pytest.mark.parametrize("config", [Bernoulli(), Binomial()], ids=lambda config: config.kind)
def test_confident_logits_stay_finite(config):
    """A logit of ±80 scores an unlikely pixel by a large number, not by infinity."""
    likelihood = config.build(levels=16)
    nll = likelihood.nll(torch.tensor([[80.0, -80.0]]), torch.tensor([[0.0, 1.0]])).sum(1)
    assert nll.isfinite().all()
    assert nll.item() > 100

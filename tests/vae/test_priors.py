"""Priors: their KL, density and moments agree with each other and with torch.distributions."""

from __future__ import annotations

import torch
from torch.distributions import Normal, kl_divergence

from vae.posteriors.diagonal import Diagonal
from vae.priors import LabelConditional, StandardNormal

MEAN = torch.tensor([[0.3, -1.0], [2.0, 0.1], [0.0, 0.5]])
LOG_VARIANCE = torch.tensor([[-1.0, 0.2], [0.4, -2.0], [0.0, 1.0]])
POSTERIOR = Diagonal(MEAN, LOG_VARIANCE)
LABEL = torch.eye(4)[[2, 0, 2]]


def learned_prior():
    """A Gaussian of its own for each of 4 labels."""
    prior = LabelConditional().build(latent_size=2, label_size=4, dimensions=5)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        prior.mean_of.copy_(torch.randn((4, 2), generator=generator))
        prior.log_variance_of.copy_(torch.randn((4, 2), generator=generator))
    return prior


def of_labels(prior):
    """The Gaussians of LABEL's rows as torch knows them."""
    rows = LABEL.argmax(1)
    return Normal(prior.mean_of[rows], torch.exp(0.5 * prior.log_variance_of[rows]))


def test_standard_normal():
    """KL, density and moments are those of N(0, I); a label changes nothing."""
    prior = StandardNormal().build(latent_size=2, label_size=0, dimensions=5)
    expected = Normal(torch.zeros(2), torch.ones(2))
    q = Normal(MEAN, torch.exp(0.5 * LOG_VARIANCE))
    for label in (None, LABEL):
        assert torch.allclose(kl_divergence(q, expected), prior.kl(POSTERIOR, MEAN[None], label, None), atol=1e-6)
        assert torch.allclose(expected.log_prob(MEAN).sum(-1), prior.log_density(MEAN, label, None), atol=1e-6)
        assert torch.equal(MEAN, prior.sample(MEAN, torch.zeros(3), label, None))
        assert torch.equal(MEAN, prior.standardise(MEAN, label))
    assert list(prior.parameters()) == []


@torch.no_grad()
def test_label_conditional():
    """KL and density of each row are those of its own label's Gaussian."""
    prior = learned_prior()
    q = Normal(MEAN, torch.exp(0.5 * LOG_VARIANCE))
    assert torch.allclose(kl_divergence(q, of_labels(prior)), prior.kl(POSTERIOR, MEAN[None], LABEL, None), atol=1e-5)
    assert torch.allclose(of_labels(prior).log_prob(MEAN).sum(-1), prior.log_density(MEAN, LABEL, None), atol=1e-5)


@torch.no_grad()
def test_label_conditional_density_takes_many_samples():
    """z may have leading dimensions, [k, B, L]: each sample is scored under its row's label."""
    prior = learned_prior()
    z = torch.randn((5, 3, 2), generator=torch.Generator().manual_seed(1))
    assert torch.allclose(of_labels(prior).log_prob(z).sum(-1), prior.log_density(z, LABEL, None), atol=1e-5)


def test_label_conditional_starts_at_the_standard_normal():
    """With nothing learned, p(z|y) is N(0, I) for every label, and its table has a gradient."""
    prior = LabelConditional().build(latent_size=2, label_size=4, dimensions=5)
    standard = StandardNormal().build(latent_size=2, label_size=0, dimensions=5)
    kl = prior.kl(POSTERIOR, MEAN[None], LABEL, None)
    assert torch.allclose(standard.kl(POSTERIOR, MEAN[None], None, None), kl, atol=1e-6)
    kl.sum().backward()
    used = prior.mean_of.grad.abs().sum(1) > 0
    assert used.tolist() == [True, False, True, False]

"""Priors: their KL, density and moments agree with each other and with torch.distributions."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import (
    Categorical,
    Independent,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
    kl_divergence,
)

from vae.posteriors import DiagonalGaussian, FullCovariance
from vae.posteriors.diagonal import Diagonal
from vae.priors import LabelConditional, Mixture, StandardNormal, Vamp
from vae.priors.mixture import pick

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


def mixture_prior(latents=1):
    """Three components, apart, of unequal weights and widths."""
    prior = Mixture(components=3).build(latent_size=latents, label_size=0, dimensions=5)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        prior.logits.copy_(torch.tensor([0.0, 1.0, -0.5]))
        prior.means.copy_(2 * torch.randn((3, latents), generator=generator))
        prior.log_variances.copy_(torch.randn((3, latents), generator=generator) - 0.5)
    return prior


def mixture_as_torch(prior):
    """The same mixture, as torch knows it."""
    components = Independent(Normal(prior.means.double(), torch.exp(0.5 * prior.log_variances.double())), 1)
    return MixtureSameFamily(Categorical(logits=prior.logits.double()), components)


def encoder(posterior, latents):
    """A fixed affine encoder from 5 pixels to ``posterior``'s numbers."""
    outputs = posterior.num_outputs(latents)
    weight = torch.randn((5, outputs), generator=torch.Generator().manual_seed(6))
    return lambda x: posterior.read(x @ weight - 0.5, latents)


def vamp_prior(latents=1):
    """Three pseudo-inputs."""
    prior = Vamp(components=3).build(latent_size=latents, label_size=0, dimensions=5)
    prior.start_from(torch.rand((3, 5), generator=torch.Generator().manual_seed(2)))
    return prior


def vamp_as_torch(prior, encode):
    """The mean of the pseudo-inputs' posteriors, as torch knows it."""
    q = encode(prior.pseudo_inputs)
    triangle = q.triangle if hasattr(q, "triangle") else torch.diag_embed(q.variance.sqrt())
    components = MultivariateNormal(q.mean.double(), scale_tril=triangle.double())
    return MixtureSameFamily(Categorical(torch.ones(3).double()), components)


CASES = {
    "mixture-1d": (mixture_prior, DiagonalGaussian(), 1),
    "mixture-2d": (mixture_prior, FullCovariance(), 2),
    "vamp-1d": (vamp_prior, DiagonalGaussian(), 1),
    "vamp-2d": (vamp_prior, DiagonalGaussian(), 2),
    "vamp-2d-full": (vamp_prior, FullCovariance(), 2),
}
ESTIMATED = pytest.mark.parametrize(("make", "family", "latents"), CASES.values(), ids=CASES)


def made(make, family, latents):
    """The prior, the encoder it is called with, and the prior as torch knows it."""
    prior, encode = make(latents), encoder(family, latents)
    return prior, encode, mixture_as_torch(prior) if make is mixture_prior else vamp_as_torch(prior, encode)


@torch.no_grad()
@ESTIMATED
def test_an_estimated_priors_density_is_that_of_torch(make, family, latents):
    """log p(z) of a mixture, and of the mean of posteriors, for one draw and for several."""
    prior, encode, expected = made(make, family, latents)
    z = 2 * torch.randn((4, 6, latents), generator=torch.Generator().manual_seed(1))
    assert torch.allclose(expected.log_prob(z.double()).float(), prior.log_density(z, None, encode), atol=1e-4)
    assert torch.allclose(expected.log_prob(z[0].double()).float(), prior.log_density(z[0], None, encode), atol=1e-4)


@torch.no_grad()
@ESTIMATED
def test_an_estimated_kl_is_the_integral(make, family, latents):
    """KL(q ‖ p) by quadrature over z is within 4 standard errors of the mean of the estimates."""
    prior, encode, p = made(make, family, latents)
    x = torch.rand((2, 5), generator=torch.Generator().manual_seed(9))
    posterior, draws = encode(x), 20_000
    z = posterior.sample(torch.randn((draws, 2, latents), generator=torch.Generator().manual_seed(4)))
    # One draw at a time, so that the estimates have a spread; and all at once, which is their mean.
    each = torch.cat([prior.kl(posterior, block, None, encode) for block in z.split(1)[:200]], dim=1)
    assert each.shape == (2, 200)
    together = prior.kl(posterior, z, None, encode)
    assert together.shape == (2, 1)
    assert torch.allclose(each.mean(1), prior.kl(posterior, z[:200], None, encode)[:, 0], atol=1e-4)
    error = each.std(1) / math.sqrt(draws)

    line = torch.linspace(-1, 1, 20_001 if latents == 1 else 801, dtype=torch.float64)
    unit = torch.cartesian_prod(*[line] * latents).view(-1, latents)
    covered = []
    for row in range(2):
        triangle = (
            posterior.triangle[row] if family.kind == "full_covariance" else posterior.variance[row].sqrt().diag()
        )
        q = MultivariateNormal(posterior.mean[row].double(), scale_tril=triangle.double())
        width = 9 * q.variance.sqrt()  # of q: outside there is nothing of it to weigh log q − log p by
        grid = q.mean + width * unit
        mass = q.log_prob(grid).exp() * ((2 / (len(line) - 1)) ** latents * width.prod())
        covered.append(mass.sum().item())
        expected = (mass * (q.log_prob(grid) - p.log_prob(grid))).sum().item()
        assert abs(together[row].item() - expected) < 4 * error[row].item() + 1e-5
    assert covered == pytest.approx([1.0, 1.0], abs=1e-6)


@torch.no_grad()
def test_a_mixture_of_equal_components_is_its_component():
    """Density exactly, KL within 4 standard errors: those of the one Gaussian, whatever the weights."""
    prior = mixture_prior(latents=2)
    prior.means.copy_(torch.tensor([0.4, -1.0]).expand(3, -1))
    prior.log_variances.copy_(torch.tensor([0.3, -0.6]).expand(3, -1))
    component = Normal(torch.tensor([0.4, -1.0]), torch.exp(0.5 * torch.tensor([0.3, -0.6])))
    z = POSTERIOR.sample(torch.randn((20_000, 3, 2), generator=torch.Generator().manual_seed(7)))
    assert torch.allclose(component.log_prob(z).sum(-1), prior.log_density(z, None, None), atol=1e-4)
    expected = kl_divergence(Normal(MEAN, torch.exp(0.5 * LOG_VARIANCE)), component).sum(1)
    assert torch.allclose(expected, POSTERIOR.kl_to_normal(component.mean, component.variance.log()).sum(1), atol=1e-4)
    spread = (POSTERIOR.log_density(z) - component.log_prob(z).sum(-1)).std(0) / math.sqrt(len(z))
    assert ((prior.kl(POSTERIOR, z, None, None)[:, 0] - expected).abs() < 4 * spread).all()


@torch.no_grad()
def test_a_vamp_prior_at_the_example_itself_costs_nothing():
    """With every pseudo-input equal to x, p(z) = q(z|x): each draw's log q − log p is 0."""
    for family in (DiagonalGaussian(), FullCovariance()):
        prior, encode = vamp_prior(2), encoder(family, 2)
        x = torch.rand((1, 5), generator=torch.Generator().manual_seed(9))
        prior.start_from(x)  # one example for three places: repeated
        assert torch.equal(x.expand(3, -1), prior.pseudo_inputs)
        z = encode(x).sample(torch.randn((50, 1, 2), generator=torch.Generator().manual_seed(3)))
        assert prior.kl(encode(x), z, None, encode).abs().max() < 1e-5
        assert (prior.log_density(z, None, encode) - encode(x).log_density(z)).abs().max() < 1e-4


@torch.no_grad()
@ESTIMATED
def test_an_estimated_priors_samples_follow_its_density(make, family, latents):
    """Each dimension's empirical distribution is the mixture's own to Kolmogorov's bound at 0.1 %, and so is a sum."""
    prior, encode, _ = made(make, family, latents)
    draws = 20_000
    generator = torch.Generator().manual_seed(8)
    noise, uniform = torch.randn((draws, latents), generator=generator), torch.rand(draws, generator=generator)
    z = prior.sample(noise, uniform, None, encode)
    if make is mixture_prior:
        weights, means = torch.softmax(prior.logits, 0), prior.means
        covariances = torch.diag_embed(prior.log_variances.exp())
    else:
        q = encode(prior.pseudo_inputs)
        weights, means = torch.full((3,), 1 / 3), q.mean
        full = hasattr(q, "triangle")
        covariances = q.triangle @ q.triangle.transpose(1, 2) if full else torch.diag_embed(q.variance)
    # A projection of a mixture of Gaussians is one; the last of these tells a correlation from none.
    for direction in [*torch.eye(latents), torch.ones(latents)]:
        spread = torch.einsum("i,kij,j->k", direction, covariances, direction).sqrt()
        ordered = (z @ direction).sort().values
        expected = (weights * Normal(means @ direction, spread).cdf(ordered.unsqueeze(1))).sum(1)
        rank = torch.arange(1, draws + 1) / draws
        assert (rank - expected).abs().max() < 1.95 / math.sqrt(draws)


def test_components_are_picked_by_their_weights():
    """u in [0, 1) chooses by cumulative weight; weights need not sum to 1; no u falls off the end."""
    uniform = torch.tensor([0.0, 0.19, 0.21, 0.69, 0.71, 1 - 2**-24])
    assert pick(torch.tensor([0.2, 0.5, 0.3]), uniform).tolist() == [0, 0, 1, 1, 2, 2]
    assert pick(torch.tensor([2.0, 5.0, 3.0]), uniform).tolist() == [0, 0, 1, 1, 2, 2]
    assert pick(torch.tensor([0.0, 1.0, 0.0]), uniform).tolist() == [1] * 6


def test_estimated_priors_are_learned():
    """The KL's gradient reaches weights, means and variances, and through the encoder the pseudo-inputs."""
    for make in (mixture_prior, vamp_prior):
        prior, encode = make(2), encoder(DiagonalGaussian(), 2)
        z = torch.randn((3, 4, 2), generator=torch.Generator().manual_seed(1))
        prior.kl(encode(torch.rand(4, 5)), z, None, encode).sum().backward()
        assert all((parameter.grad != 0).any() for parameter in prior.parameters())
        assert prior.closed_form is False

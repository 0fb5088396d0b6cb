"""Posteriors: KL, density and samples are those of torch.distributions; a point has none of them."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence

from vae.posteriors import Deterministic, DiagonalGaussian, FullCovariance

B, L = 4, 3
CONFIGS = {"diagonal": DiagonalGaussian(), "full": FullCovariance()}
BOTH = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
# The moments of a label's prior, one for each example, and those of N(0, I).
PRIORS = {
    "standard": (torch.zeros(B, L, dtype=torch.float64), torch.zeros(B, L, dtype=torch.float64)),
    "labels": (
        torch.randn((B, L), generator=torch.Generator().manual_seed(8)).double(),
        0.7 * torch.randn((B, L), generator=torch.Generator().manual_seed(9)).double(),
    ),
}


def read(config, *, seed=0):
    """A posterior of random encoder outputs, in float64."""
    outputs = torch.randn((B, config.num_outputs(L)), generator=torch.Generator().manual_seed(seed)).double()
    return config.read(0.8 * outputs, L)


def as_torch(posterior):
    """The same distributions, as torch knows them."""
    if hasattr(posterior, "triangle"):
        return MultivariateNormal(posterior.mean, scale_tril=posterior.triangle)
    return MultivariateNormal(posterior.mean, torch.diag_embed(posterior.variance))


def normal(mean, log_variance):
    """A prior with independent dimensions, as a multivariate normal."""
    return MultivariateNormal(mean, torch.diag_embed(torch.exp(log_variance)))


def kl_by_dimension(posterior, prior):
    """As the prior's own kl asks for it."""
    return posterior.kl_to_standard_normal() if prior == "standard" else posterior.kl_to_normal(*PRIORS[prior])


def test_what_the_encoder_gives():
    """2·L numbers for a diagonal, L(L − 1)/2 more for a full covariance, L for a point."""
    assert [config.num_outputs(5) for config in (*CONFIGS.values(), Deterministic())] == [10, 20, 5]


def test_the_triangle_is_read_row_by_row():
    """Mean, log diagonal, then what is below it: 1; 2, 3; above it nothing."""
    outputs = torch.tensor([[7.0, 8.0, 9.0, 0.0, math.log(2), math.log(3), 1.0, 2.0, 3.0]])
    posterior = FullCovariance().read(outputs, 3)
    assert posterior.mean.tolist() == [[7.0, 8.0, 9.0]]
    expected = torch.tensor([[1.0, 0.0, 0.0], [1.0, 2.0, 0.0], [2.0, 3.0, 3.0]])
    assert torch.allclose(expected, posterior.triangle[0])


@BOTH
@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("seed", range(3))
def test_the_kl_is_the_closed_form(config, prior, seed):
    """Summed over dimensions it is torch.distributions' KL between multivariate normals."""
    posterior = read(config, seed=seed)
    expected = kl_divergence(as_torch(posterior), normal(*PRIORS[prior]))
    assert torch.allclose(expected, kl_by_dimension(posterior, prior).sum(1))


@BOTH
@pytest.mark.parametrize("prior", PRIORS)
def test_the_kl_is_what_monte_carlo_says(config, prior):
    """Within 4 standard errors of the mean of log q − log p at torch's own draws."""
    posterior = read(config)
    torch.manual_seed(3)
    q = as_torch(posterior)
    z = q.sample((40_000,))
    ratio = q.log_prob(z) - normal(*PRIORS[prior]).log_prob(z)
    error = ratio.std(0) / math.sqrt(len(z))
    assert ((ratio.mean(0) - kl_by_dimension(posterior, prior).sum(1)).abs() < 4 * error).all()


@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("seed", range(3))
def test_the_full_kl_divides_by_the_chain_rule(prior, seed):
    """Dimension d's share is E KL(q(z_d | z_<d) ‖ p(z_d)), from the covariance's own blocks; none is negative."""
    posterior = read(FullCovariance(), seed=seed)
    covariance = as_torch(posterior).covariance_matrix
    prior_mean, prior_log_variance = PRIORS[prior]
    shares = kl_by_dimension(posterior, prior)
    assert shares.shape == (B, L)
    assert (shares >= 0).all()
    for row in range(B):
        for d in range(L):
            before, across = covariance[row, :d, :d], covariance[row, d, :d]
            explained = across @ torch.linalg.solve(before, across) if d else torch.zeros((), dtype=torch.float64)
            variance, s2 = covariance[row, d, d] - explained, prior_log_variance[row, d].exp()
            distance = (posterior.mean[row, d] - prior_mean[row, d]).square() + explained
            expected = 0.5 * ((variance + distance) / s2 - 1 + (s2 / variance).log())
            assert shares[row, d].item() == pytest.approx(expected.item())


@pytest.mark.parametrize("prior", PRIORS)
def test_no_share_of_the_full_kl_is_negative_at_its_smallest(prior):
    """At q = p every share is 0; any move from there makes none negative."""
    mean, log_variance = PRIORS[prior]
    at_prior = torch.cat([mean, 0.5 * log_variance, torch.zeros(B, L * (L - 1) // 2).double()], dim=1)
    assert kl_by_dimension(FullCovariance().read(at_prior, L), prior).abs().max() < 1e-12
    generator = torch.Generator().manual_seed(5)
    for _ in range(50):
        moved = at_prior + 0.1 * torch.randn(at_prior.shape, generator=generator).double()
        assert (kl_by_dimension(FullCovariance().read(moved, L), prior) >= 0).all()


@BOTH
def test_the_density_is_that_of_torch(config):
    """log q(z|x), also for several draws at once, [S, B, L] -> [S, B]."""
    posterior = read(config)
    z = torch.randn((5, B, L), generator=torch.Generator().manual_seed(1)).double()
    assert torch.allclose(as_torch(posterior).log_prob(z), posterior.log_density(z))
    assert torch.allclose(as_torch(posterior).log_prob(z[0]), posterior.log_density(z[0]))


def test_the_density_by_dimension_is_that_of_torch():
    """A diagonal posterior's log density divides into its dimensions'."""
    posterior = read(DiagonalGaussian())
    z = torch.randn((5, B, L), generator=torch.Generator().manual_seed(1)).double()
    expected = Normal(posterior.mean, posterior.variance.sqrt())
    assert torch.allclose(expected.log_prob(z), posterior.log_density_by_dimension(z))
    assert torch.allclose(Independent(expected, 1).log_prob(z), posterior.log_density(z))


@BOTH
def test_samples_have_the_right_moments(config):
    """Mean, variance and covariance over 40,000 draws of ε are within 4 standard errors."""
    posterior, draws = read(config), 40_000
    z = posterior.sample(torch.randn((draws, B, L), generator=torch.Generator().manual_seed(2)).double())
    covariance = as_torch(posterior).covariance_matrix
    variance = covariance.diagonal(dim1=1, dim2=2)
    assert torch.allclose(variance, posterior.variance)
    assert ((z.mean(0) - posterior.mean).abs() < 4 * (variance / draws).sqrt()).all()
    centred = z - z.mean(0)
    measured = torch.einsum("sbi,sbj->bij", centred, centred) / draws
    error = ((variance.unsqueeze(2) * variance.unsqueeze(1) + covariance.square()) / draws).sqrt()
    assert ((measured - covariance).abs() < 4 * error).all()


def test_a_full_covariance_with_nothing_below_its_diagonal_is_a_diagonal():
    """The two posteriors are one where T is diagonal: log σ² = 2 log T_dd."""
    outputs = torch.randn((B, 2 * L), generator=torch.Generator().manual_seed(4)).double()
    mean, log_diagonal = outputs.chunk(2, dim=1)
    diagonal = DiagonalGaussian().read(torch.cat([mean, 2 * log_diagonal], dim=1), L)
    full = FullCovariance().read(torch.cat([outputs, torch.zeros(B, 3).double()], dim=1), L)
    noise = torch.randn((2, B, L), generator=torch.Generator().manual_seed(6)).double()
    assert torch.allclose(diagonal.sample(noise), full.sample(noise))
    assert torch.allclose(diagonal.log_density(noise), full.log_density(noise))
    for prior in PRIORS:
        assert torch.allclose(kl_by_dimension(diagonal, prior), kl_by_dimension(full, prior))


def test_a_full_covariance_of_one_dimension():
    """L = 1 has nothing below the diagonal and is a diagonal Gaussian."""
    outputs = torch.tensor([[0.3, -0.5]])
    full = FullCovariance().read(outputs, 1)
    assert FullCovariance().num_outputs(1) == 2
    expected = kl_divergence(Normal(0.3, math.exp(-0.5)), Normal(0.0, 1.0))
    assert full.kl_to_standard_normal().item() == pytest.approx(expected.item(), rel=1e-5)


@BOTH
def test_detached_nothing_flows_to_the_parameters(config):
    """log q at z has no gradient for μ and Σ once detached, and keeps the one for z."""
    outputs = torch.randn((B, config.num_outputs(L)), generator=torch.Generator().manual_seed(0)).requires_grad_()
    z = torch.ones(B, L, requires_grad=True)
    config.read(outputs, L).detach().log_density(z).sum().backward()
    assert outputs.grad is None
    assert (z.grad != 0).any()
    config.read(outputs, L).log_density(z.detach()).sum().backward()
    assert (outputs.grad != 0).any()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("identity", [-2.0, 0.0, 3.0]),
        ("sigmoid", [1 / (1 + math.exp(2)), 0.5, 1 / (1 + math.exp(-3))]),
        ("relu", [0.0, 0.0, 3.0]),
        ("tanh", [math.tanh(-2), 0.0, math.tanh(3)]),
    ],
)
def test_a_point_is_the_encoders_output_after_its_activation(name, expected):
    """Whatever the noise, the code is f(x), without spread."""
    point = Deterministic(activation=name).read(torch.tensor([[-2.0, 0.0, 3.0]]), 3)
    assert point.mean[0].tolist() == pytest.approx(expected)
    z = point.sample(torch.randn(4, 1, 3))
    assert z.shape == (4, 1, 3)
    assert torch.equal(point.mean.expand(4, 1, 3), z)
    assert point.variance.tolist() == [[0.0, 0.0, 0.0]]


def test_a_point_has_no_density():
    """Asking for it is an error, and its KL is no term rather than 0."""
    point = Deterministic().read(torch.zeros(2, 3), 3)
    with pytest.raises(TypeError, match="no density"):
        point.log_density(torch.zeros(2, 3))
    assert point.kl_to_standard_normal().shape == (2, 0)
    assert point.kl_to_normal(torch.zeros(3), torch.zeros(3)).shape == (2, 0)
    assert [config.has_density for config in (*CONFIGS.values(), Deterministic())] == [True, True, False]


def test_a_detached_point_passes_no_gradient():
    """The code of a detached point is a constant."""
    outputs = torch.ones(2, 3, requires_grad=True)
    assert Deterministic().read(outputs, 3).mean.requires_grad
    assert not Deterministic().read(outputs, 3).detach().mean.requires_grad

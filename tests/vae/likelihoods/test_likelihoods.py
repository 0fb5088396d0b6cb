"""Likelihoods: normalised, in nats, all constants in place; means and output biases that fit them."""

from __future__ import annotations

import itertools
import json
import math

import pytest
import torch
from pydantic import TypeAdapter
from torch.distributions import Bernoulli as TorchBernoulli
from torch.distributions import Binomial as TorchBinomial
from torch.distributions import Categorical as TorchCategorical
from torch.distributions import ContinuousBernoulli as TorchContinuousBernoulli
from torch.distributions import Laplace as TorchLaplace
from torch.distributions import Normal

from vae.config import ConfigError
from vae.data import Mnist, load_test
from vae.likelihoods import (
    Bernoulli,
    Binomial,
    Categorical,
    ContinuousBernoulli,
    Diagnosed,
    DiscretisedLogistic,
    Gaussian,
    Laplace,
    LikelihoodConfig,
)

LOGITS = torch.tensor([[-3.0, 0.0, 0.4, 7.0]])
WIDE = Gaussian(variance=0.04, learned="per_pixel")
ALL = [
    Bernoulli(),
    Binomial(),
    Categorical(),
    ContinuousBernoulli(),
    DiscretisedLogistic(),
    Gaussian(),
    Gaussian(learned="shared"),
    WIDE,
    Laplace(),
    Laplace(learned="shared"),
]


def named(config):
    """The id of a parametrised test."""
    return f"{config.kind}-{getattr(config, 'learned', '')}".rstrip("-")


def logistic_cdf(value, location, scale):
    """Of plain floats, neither of its tails cancelling."""
    return 0.5 * (1 + math.tanh((value - location) / scale / 2))


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


MASSES = [
    (Bernoulli(), 1, [-2.0]),
    (Bernoulli(), 1, [9.0]),
    *((Binomial(), n, [logit]) for n in (1, 16, 255) for logit in (-3.0, 0.4)),
    *((Categorical(), n, torch.linspace(-2, 3, n + 1).cos().tolist()) for n in (1, 16, 49, 255)),
    *(
        (DiscretisedLogistic(), n, [location, log_scale])
        for n in (1, 16, 255)
        for location, log_scale in ((0.3, 0.0), (0.9, -1.5), (-0.4, 1.0), (0.502, -50.0), (0.3, 40.0))
    ),
]


@pytest.mark.parametrize(("config", "levels", "parameters"), MASSES)
def test_masses_sum_to_one_and_have_their_mean(config, levels, parameters):
    """Over the values that a pixel can have the probabilities sum to one, and weigh them to ``mean``."""
    likelihood = config.build(levels=levels)
    x = torch.arange(levels + 1.0)[:, None] / levels
    output = torch.tensor([parameters]).expand(levels + 1, -1)
    mass = torch.exp(-likelihood.nll(output, x).double())
    assert mass.sum().item() == pytest.approx(1, abs=2e-4)
    assert likelihood.mean(output)[0].item() == pytest.approx((mass * x).sum().item(), abs=2e-4)


DENSITIES = [
    *((ContinuousBernoulli(), [logit]) for logit in (0.0, 1e-3, -0.29, 0.31, -5.0, 12.0, -18.0, 60.0, -300.0)),
    *((Gaussian(variance=0.04, learned=learned), [0.3]) for learned in ("none", "shared")),
    *((WIDE, [0.3, log_variance]) for log_variance in (0.0, 1.5, -3.0)),
    *((Laplace(scale=0.2, learned=learned), [0.3]) for learned in ("none", "shared")),
]


@pytest.mark.parametrize(("config", "parameters"), DENSITIES)
@torch.no_grad()
def test_densities_integrate_to_one_and_have_their_mean(config, parameters):
    """By quadrature in float64 over the support, finer towards the ends and the middle, ∫p = 1 and ∫xp = ``mean``."""
    likelihood = config.build(levels=0).double()
    steps = torch.cat([torch.zeros(1), torch.logspace(-9, 0, 8001, dtype=torch.float64)])
    low, middle, high = (0.0, 0.3, 1.0) if config.support == "unit" else (-9.7, 0.3, 10.3)
    ends = ((low, middle), (high, middle), (middle, low), (middle, high))
    x = torch.cat([start + (stop - start) * steps for start, stop in ends]).unique()
    output = torch.tensor([parameters], dtype=torch.float64)
    density = torch.exp(-likelihood.nll(output.expand(len(x), -1), x[:, None])).squeeze(1)
    assert torch.trapezoid(density, x).item() == pytest.approx(1, abs=1e-4)
    assert likelihood.mean(output).item() == pytest.approx(torch.trapezoid(density * x, x).item(), abs=1e-4)


def test_categorical_is_torchs():
    """log p equals torch.distributions' Categorical; all pixels' logits of 0 come first, then all of 1, and so on."""
    logits = torch.randn((5, 3, 17), generator=torch.Generator().manual_seed(0))
    counts = torch.tensor([[0, 16, 7]]).repeat(5, 1)
    expected = -TorchCategorical(logits=logits).log_prob(counts)
    likelihood = Categorical().build(levels=16)
    assert torch.allclose(expected, likelihood.nll(logits.transpose(1, 2).flatten(1), counts / 16), atol=1e-5)


def test_continuous_bernoulli_is_torchs():
    """log p and mean equal torch.distributions' in float64, up to the |logit| of 12 to which that is exact."""
    logits = torch.linspace(-12, 12, 25, dtype=torch.float64)[:, None] + 0.05
    x = torch.rand((25, 7), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torchs = TorchContinuousBernoulli(logits=logits.expand(25, 7))
    likelihood = ContinuousBernoulli().build(levels=255)
    assert torch.allclose(-torchs.log_prob(x), likelihood.nll(logits.expand(25, 7), x), atol=1e-6)
    assert torch.allclose(torchs.mean, likelihood.mean(logits.expand(25, 7)), atol=1e-6)


def test_continuous_bernoulli_in_float32_is_itself_in_float64():
    """Rounding costs it less than 1e-5, at logits around 0, where a formula changes, and where λ rounds to 1."""
    logits = torch.tensor([[0.0, 1e-6, -1e-3, 0.2999, 0.3, -0.3, 2.0, -17.0, 40.0, -90.0]])
    likelihood = ContinuousBernoulli().build(levels=255)
    for x in (0.0, 0.37, 1.0):
        image = torch.full_like(logits, x)
        assert torch.allclose(
            likelihood.nll(logits.double(), image.double()),
            likelihood.nll(logits, image).double(),
            rtol=1e-5,
            atol=1e-6,
        )
    assert torch.allclose(likelihood.mean(logits.double()), likelihood.mean(logits).double(), rtol=1e-5)


def test_continuous_bernoullis_gradient_is_mean_minus_x():
    """d(−log p)/dl = E[x] − x, the exponential family's, at all logits."""
    logits = torch.tensor([[-400.0, -20.0, -0.2, 0.0, 0.2, 3.0, 20.0, 400.0]], requires_grad=True)
    likelihood = ContinuousBernoulli().build(levels=255)
    likelihood.nll(logits, torch.full_like(logits, 0.4)).sum().backward()
    assert torch.allclose(likelihood.mean(logits.detach()) - 0.4, logits.grad, atol=1e-5)


@pytest.mark.parametrize("learned", ["none", "shared"])
def test_laplace_is_torchs(learned):
    """log p of each pixel equals torch.distributions' Laplace."""
    likelihood = Laplace(scale=0.1, learned=learned).build(levels=0)
    x, location = torch.tensor([[0.2, 0.5, -3.0]]), torch.tensor([[0.25, 0.4, 0.0]])
    assert torch.allclose(-TorchLaplace(location, 0.1).log_prob(x), likelihood.nll(location, x), atol=1e-5)


def test_per_pixel_gaussian_is_torchs():
    """The decoder's outputs are all means, then all log variances, from the configured one on."""
    likelihood = Gaussian(variance=0.04, learned="per_pixel").build(levels=0)
    x, mean = torch.tensor([[0.2, 0.5, -3.0]]), torch.tensor([[0.25, 0.4, 0.0]])
    log_variance = torch.tensor([[0.0, 1.0, -2.0]])
    expected = -Normal(mean, 0.2 * torch.exp(0.5 * log_variance)).log_prob(x)
    assert torch.allclose(expected, likelihood.nll(torch.cat([mean, log_variance], 1), x), rtol=1e-5)
    assert torch.equal(mean, likelihood.mean(torch.cat([mean, log_variance], 1)))


@pytest.mark.parametrize(
    ("levels", "log_scale"), [(1, -0.8), (16, -0.8), (255, -0.8), (255, 3.66), (255, 3.68)], ids=str
)  # at 3.67 the formula for the width of a bin changes
def test_discretised_logistic_is_the_logistics_mass_of_each_bin(levels, log_scale):
    """Each integer has the logistic's mass within half of it, the first and last all of their tails."""
    location = 0.37
    scale = 0.1 * math.exp(log_scale)
    edges = [-math.inf, *((k - 0.5) / levels for k in range(1, levels + 1)), math.inf]
    cdf = [logistic_cdf(edge, location, scale) for edge in edges]
    likelihood = DiscretisedLogistic().build(levels=levels)
    for k in range(levels + 1):
        nll = likelihood.nll(torch.tensor([[location, log_scale]]), torch.tensor([[k / levels]])).item()
        assert math.exp(-nll) == pytest.approx(cdf[k + 1] - cdf[k], rel=1e-4, abs=1e-9)


def test_discretised_logistics_tails_do_not_cancel():
    """Far from its location a bin's −log mass goes on linearly, where the difference of two sigmoids is 0."""
    likelihood = DiscretisedLogistic(floor=1e-3).build(levels=255)
    output = torch.tensor([[0.1, -50.0]]).expand(2, -1)
    nll = likelihood.nll(output, torch.tensor([[200 / 255], [220 / 255]])).squeeze(1)
    assert (nll[1] - nll[0]).item() == pytest.approx(20 / 255 / 1e-3, rel=1e-4)


@pytest.mark.parametrize("levels", [1, 16, 255])
@pytest.mark.parametrize("config", ALL, ids=named)
@torch.no_grad()
def test_the_output_bias_predicts_the_mean(config, levels):
    """``mean(output_bias(m)) = m`` of each pixel, clipped only at the ends."""
    likelihood = config.build(levels=levels)
    mean = torch.tensor([0.002, 0.01, 0.3, 0.5, 0.98])
    bias = likelihood.output_bias(mean)
    assert bias.shape == (likelihood.outputs_per_dimension * 5,)
    assert torch.allclose(mean, likelihood.mean(bias[None])[0], atol=1e-5)
    ends = likelihood.output_bias(torch.tensor([0.0, 1.0]))
    assert ends.isfinite().all()
    assert torch.allclose(torch.tensor([0.0, 1.0]), likelihood.mean(ends[None])[0], atol=2e-3)


def test_the_output_bias_of_a_wide_floor():
    """A floor above the scale that a decoder starts from is reckoned with."""
    likelihood = DiscretisedLogistic(floor=2.0).build(levels=255)
    mean = torch.tensor([0.01, 0.5, 0.9])
    assert torch.allclose(mean, likelihood.mean(likelihood.output_bias(mean)[None])[0], atol=1e-5)


@pytest.mark.parametrize("config", ALL, ids=named)
def test_each_pixel_is_scored_by_its_own_outputs(config):
    """A score for each pixel of each example, and a pixel's outputs and value move no other pixel's score or mean."""
    likelihood = config.build(levels=16)
    outputs = likelihood.outputs_per_dimension
    output = torch.randn((3, outputs, 4), generator=torch.Generator().manual_seed(0))
    x = torch.tensor([[0.0, 1.0, 0.0, 1.0]]).repeat(3, 1)
    changed, other = output.clone(), x.clone()
    changed[1, :, 2] += torch.linspace(0.5, 1, outputs)
    other[1, 2] = 1.0
    before, after = likelihood.nll(output.flatten(1), x), likelihood.nll(changed.flatten(1), other)
    expected = torch.zeros((3, 4), dtype=torch.bool)
    expected[1, 2] = True
    assert torch.equal(expected, before != after)
    assert torch.equal(expected, likelihood.mean(output.flatten(1)) != likelihood.mean(changed.flatten(1)))


@pytest.mark.parametrize("size", [0.0, 80.0, 1e4, 1e12])
@pytest.mark.parametrize("config", ALL, ids=named)
def test_extreme_outputs_have_finite_scores_and_gradients(config, size):
    """Outputs of up to ±1e12 score black and white pixels by a large number, not infinity, and have gradients that are no NaN."""
    likelihood = config.build(levels=16)
    signs = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=2))).repeat(2, 1)
    signs = signs[:, torch.arange(likelihood.outputs_per_dimension) % 2]
    output = (size * signs).requires_grad_()
    x = torch.tensor([[0.0]] * 4 + [[1.0]] * 4)
    nll = likelihood.nll(output, x)
    assert nll.isfinite().all()
    nll.sum().backward()
    assert output.grad.isfinite().all()
    output.grad = None
    likelihood.mean(output).sum().backward()
    assert output.grad is None or output.grad.isfinite().all()


@pytest.mark.parametrize("config", [Bernoulli(), Binomial()], ids=named)
def test_confident_logits_stay_finite(config):
    """A logit of ±80 scores an unlikely pixel by a large number, not by infinity."""
    likelihood = config.build(levels=16)
    nll = likelihood.nll(torch.tensor([[80.0, -80.0]]), torch.tensor([[0.0, 1.0]])).sum(1)
    assert nll.isfinite().all()
    assert nll.item() > 100


@pytest.mark.parametrize("config", [WIDE, DiscretisedLogistic(floor=0.01)], ids=named)
def test_scales_of_pixels_stop_at_their_floor_and_are_counted(config):
    """Below the floor no pixel scores better; ``at_floor`` is the fraction of an example's pixels that are held there."""
    likelihood = config.build(levels=255)
    spread = {"gaussian": 2 * math.log(1 / 256 / 0.2), "discretised_logistic": math.log(0.1)}[config.kind]
    scales = torch.tensor([[0.0, 1.0, 2.0, 3.0], [spread + 0.01, spread - 0.01, -50.0, 0.0], [-90.0] * 4])
    output = torch.cat([torch.full((3, 4), 0.4), scales], 1)
    assert likelihood.diagnostics(output)["at_floor"].tolist() == [0.0, 0.5, 1.0]
    x = torch.full((3, 4), 102 / 255)
    nll = likelihood.nll(output, x)
    at_floor = likelihood.nll(torch.tensor([[0.4, spread]]), x[:1, :1]).item()
    assert nll.min().item() == pytest.approx(at_floor, rel=1e-5)
    assert torch.allclose(torch.full((4,), at_floor), nll[2], rtol=1e-5)


def test_only_a_learned_laplace_scale_is_trained_and_stops_at_its_floor():
    """A learned b has a gradient above its floor; below it the density no longer grows. A fixed one is as it is set."""
    x = torch.full((1, 8), 0.5)
    above = Laplace(scale=0.1, learned="shared").build(levels=255)
    above.nll(x, x).sum().backward()
    assert above.log_scale.grad.item() == pytest.approx(8)  # D: a perfect fit asks for a smaller b
    below = Laplace(scale=1e-6, learned="shared", floor=0.02).build(levels=255)
    assert below.nll(x, x).sum().item() == pytest.approx(8 * math.log(2 * 0.02), rel=1e-5)
    fixed = Laplace(scale=1e-6, floor=0.02).build(levels=255)
    assert list(fixed.parameters()) == []
    assert fixed.nll(x, x).sum().item() == pytest.approx(8 * math.log(2 * 1e-6), rel=1e-5)


@pytest.mark.parametrize("config", ALL, ids=named)
def test_diagnostics_exist_only_for_likelihoods_with_a_scale_by_pixel(config):
    """They are one number for each example. A likelihood without a floor for its pixels has none."""
    likelihood = config.build(levels=16)
    watched = config in (WIDE, DiscretisedLogistic())
    assert isinstance(likelihood, Diagnosed) == watched
    if watched:
        diagnostics = likelihood.diagnostics(torch.zeros(5, 3 * likelihood.outputs_per_dimension))
        assert {name: value.shape for name, value in diagnostics.items()} == {"at_floor": (5,)}


@pytest.mark.parametrize("config", ALL, ids=named)
def test_real_values_are_refused_by_masses_on_integers(config):
    """Data of real values (0 levels) have no integers to put a mass on: a remedy is named. Others take them."""
    if config.support == "levels":
        with pytest.raises(ConfigError, match=rf"'{config.kind}' .*real values; use 'gaussian' or 'laplace'"):
            config.build(levels=0)
    else:
        assert config.build(levels=0).outputs_per_dimension >= 1


@pytest.mark.parametrize("config", ALL, ids=named)
def test_what_a_likelihood_says_of_itself_is_no_setting(config):
    """``kind`` chooses the config in JSON, and comes back as it was; ``discrete`` and ``support`` are not in it."""
    adapter = TypeAdapter(LikelihoodConfig)
    data = adapter.dump_json(config)
    assert {"discrete", "support"}.isdisjoint(json.loads(data))
    assert config == adapter.validate_json(data)
    assert config.discrete == (config.support in ("binary", "levels"))

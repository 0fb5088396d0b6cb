"""The bound and the importance-weighted likelihood, on models whose log p(x) is known."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch.distributions import Binomial, Normal

from tests.support.affine import affine
from tests.support.small import few_digits, held_out, noise_images, run, small_config
from vae import seeds
from vae.conditioning import OnLabel
from vae.data import Digits, Mnist
from vae.evaluate import (
    ImportanceWeighted,
    active_units,
    bits_per_dimension,
    evaluate,
    held_out_metrics,
    importance_weighted_nll,
)
from vae.likelihoods import Bernoulli, Gaussian
from vae.measure import measure_of
from vae.networks import Mlp
from vae.priors import LabelConditional
from vae.train import build
from vae.train_config import Evaluation

SEEDS = range(24)


def nll(exact, *, k, seed=0, marginal=False):
    """The importance-weighted estimate over all examples."""
    return importance_weighted_nll(
        exact.model, exact.pixels, k=k, images=1000, seed=seed, split="validation", marginal=marginal
    )


def over_seeds(estimate):
    """Mean of ``estimate(seed)`` and its standard error."""
    values = torch.tensor([estimate(seed) for seed in SEEDS], dtype=torch.float64)
    return values.mean().item(), values.std().item() / math.sqrt(len(values))


@pytest.mark.parametrize("labelled", [False, True])
def test_estimate_with_the_true_posterior_is_exact_with_one_sample(labelled):
    """With q(z|x) = p(z|x) each weight is p(x): the estimate, its standard error and the ELBO are exact."""
    exact = affine(labelled=labelled)
    estimate = nll(exact, k=1)
    assert estimate.nll == pytest.approx(-exact.log_p.mean().item(), abs=1e-3)
    error = exact.log_p.std().item() / math.sqrt(len(exact.log_p))
    assert estimate.standard_error == pytest.approx(error, abs=1e-3)
    assert torch.allclose(exact.elbo, exact.log_p, atol=1e-5)


@pytest.mark.parametrize("labelled", [False, True])
def test_elbo_with_a_wrong_posterior_is_its_closed_form_in_expectation(labelled):
    """With a wrong posterior a row's ELBO is the closed form within 4 standard errors, and below log p."""
    exact = affine(error=1.0, labelled=labelled)
    mean, error = over_seeds(
        lambda seed: evaluate(exact.model, exact.pixels, Evaluation(seed=seed, samples=20), exact.measure)["elbo"]
    )
    assert abs(mean - exact.elbo.mean().item()) < 4 * error
    assert mean + 4 * error < exact.log_p.mean().item()


def test_estimate_with_one_sample_equals_the_elbo_in_expectation():
    """IWAE₁ equals the ELBO in expectation."""
    exact = affine(error=1.0)
    mean, error = over_seeds(lambda seed: -nll(exact, k=1, seed=seed).nll)
    assert error < 0.1
    assert abs(mean - exact.elbo.mean().item()) < 4 * error


@pytest.mark.parametrize("labelled", [False, True])
def test_estimate_with_more_samples_is_a_tighter_bound(labelled):
    """ELBO ≤ IWAE₂ ≤ IWAE₈ ≤ IWAE₆₄ ≤ log p(x) in expectation, and the gap closes."""
    exact = affine(error=1.0, labelled=labelled)
    log_p = exact.log_p.mean().item()
    before, before_error = exact.elbo.mean().item(), 0.0
    for k in (2, 8, 64):
        mean, error = over_seeds(lambda seed, k=k: -nll(exact, k=k, seed=seed).nll)
        assert mean > before + 2 * (error + before_error)
        assert mean < log_p + 4 * error
        before, before_error = mean, error
    assert log_p - before < 0.1 * (log_p - exact.elbo.mean().item())


def test_estimate_with_the_same_seed_repeats_and_with_another_differs():
    """The same seed gives the same number whatever was drawn before; another seed another."""
    exact = affine(error=1.0)
    first = nll(exact, k=6)
    torch.manual_seed(123)
    assert nll(exact, k=6) == first
    assert nll(exact, k=6, seed=1).nll != first.nll


@torch.no_grad()
@pytest.mark.parametrize("k", [1, 2, 5, 230])
def test_estimate_with_any_k_equals_torch_distributions(k):
    """nll, its error, and the change from its first k/2 samples, recomputed with torch.distributions."""
    exact = affine(error=1.0, examples=7)
    estimate = nll(exact, k=k, seed=5)
    x = exact.pixels.batch(slice(0, 7))
    half = max(1, k // 2)
    draw = seeds.generator(5, "importance", "validation")
    sizes = [min(100, half - start) for start in range(0, half, 100)]
    sizes += [min(100, k - start) for start in range(half, k, 100)]
    noise = torch.cat([torch.randn((size, 7, 2), generator=draw) for size in sizes])
    assert len(noise) == k
    encoded = exact.model.encode(x, None)
    q = Normal(encoded.mean, torch.exp(0.5 * encoded.log_variance))
    z = q.mean + q.stddev * noise
    p = Normal(exact.model.decode(z.flatten(0, 1), None).view(k, 7, 6), math.sqrt(0.03))
    weight = (p.log_prob(x).sum(2) + Normal(0.0, 1.0).log_prob(z).sum(2) - q.log_prob(z).sum(2)).double()
    at_k = math.log(k) - torch.logsumexp(weight, 0)
    at_half = math.log(half) - torch.logsumexp(weight[:half], 0)
    assert estimate.nll == pytest.approx(at_k.mean().item(), abs=1e-4)
    assert estimate.standard_error == pytest.approx(at_k.std().item() / math.sqrt(7), abs=1e-4)
    assert estimate.change_from_half == pytest.approx((at_k.mean() - at_half.mean()).item(), abs=1e-4)
    assert (estimate.k, estimate.images) == (k, 7)


def test_estimate_with_another_batch_size_has_the_same_digits():
    """How many images are evaluated at once changes no digit of nll_iwae; asking for too many takes all."""
    exact = affine(error=1.0)

    def scores(**settings):
        return held_out_metrics(exact.model, exact.pixels, Evaluation(nll_k=12, **settings), exact.measure)

    first = scores(batch_size=1000, nll_images=30)
    for settings in ({"batch_size": 7, "nll_images": 30}, {"batch_size": 1, "nll_images": 5000}):
        again = scores(**settings)
        assert again["nll_iwae"] == first["nll_iwae"]
        assert again["nll_iwae_images"] == 30
        for name in ("elbo", "reconstruction", "kl"):
            assert again[name] == pytest.approx(first[name], rel=1e-6)
    fewer = scores(nll_images=10)
    assert fewer["nll_iwae_images"] == 10
    assert fewer["nll_iwae"] != first["nll_iwae"]
    assert first["nll_iwae_k"] == 12


def test_estimate_of_one_image_has_an_infinite_error():
    """One image says nothing about the spread over images: the error is infinite, not 0."""
    exact = affine(error=1.0)
    estimate = importance_weighted_nll(exact.model, exact.pixels, k=2, images=1, seed=0, split="validation")
    assert estimate.standard_error == math.inf


def test_metrics_of_an_estimate_have_the_names_of_rows():
    """A row says the value, its error, what doubling k still gave, k, and the images."""
    estimate = ImportanceWeighted(nll=1.0, standard_error=0.5, change_from_half=-0.25, k=8, images=3)
    assert estimate.metrics() == {
        "nll_iwae": 1.0,
        "nll_iwae_standard_error": 0.5,
        "nll_iwae_change_from_half_k": -0.25,
        "nll_iwae_k": 8,
        "nll_iwae_images": 3,
    }


def test_marginal_estimate_with_true_posteriors_is_the_exact_mixture():
    """−log Σ_y p(y) p(x|y) of a labelled model with the true posteriors is exact with one sample."""
    exact = affine(labelled=True)
    mixture = torch.logsumexp(exact.log_p_by_label + exact.model.label_log_prior.double()[:, None], 0)
    assert nll(exact, k=1, marginal=True).nll == pytest.approx(-mixture.mean().item(), abs=1e-3)
    assert nll(exact, k=1).nll == pytest.approx(-exact.log_p.mean().item(), abs=1e-3)


@torch.no_grad()
def test_marginal_estimate_of_a_tiny_model_equals_quadrature():
    """p(x) of a tiny labelled model of counts is the sum over labels of integrals over z by quadrature."""
    data = noise_images((1, 1, 3), levels=4, classes=2, validation=5)
    config = small_config(network=Mlp(hidden=(4,), activation="tanh"), latent_size=1, conditioning=OnLabel())
    config = dataclasses.replace(config, prior=LabelConditional())
    model = build(config, data)
    model.prior.mean_of.copy_(torch.tensor([[0.5], [-1.0]]))
    model.prior.log_variance_of.copy_(torch.tensor([[0.2], [-0.6]]))
    model.label_log_prior.copy_(torch.tensor([0.25, 0.75]).log())
    pixels = held_out(config, data)
    x = pixels.batch(slice(0, 5))
    z = torch.linspace(-12, 12, 4001)[:, None]
    total = torch.zeros(5, dtype=torch.float64)
    for y, share in enumerate((0.25, 0.75)):
        label = torch.eye(2)[y].expand(len(z), -1)
        logits = model.decode(z, label).double()
        prior = Normal(model.prior.mean_of[y], torch.exp(0.5 * model.prior.log_variance_of[y]))
        likelihood = Binomial(4, logits=logits[:, None]).log_prob((x * 4).round().double()).sum(2)
        integrand = torch.exp(likelihood + prior.log_prob(z).double())
        total += share * torch.trapezoid(integrand, z.squeeze(1).double(), dim=0)
    estimate = importance_weighted_nll(model, pixels, k=4000, images=5, seed=0, split="validation", marginal=True)
    assert estimate.nll == pytest.approx(-total.log().mean().item(), abs=0.03)


def test_label_prior_after_build_is_the_frequency_of_training_labels():
    """p(y), by which the label is summed out, is counted on the training split."""
    data = noise_images((1, 2, 2), levels=16, classes=4, train=6)  # labels 0 1 2 3 0 1
    model = build(small_config(conditioning=OnLabel()), data)
    assert model.label_log_prior.exp().tolist() == pytest.approx([2 / 6, 2 / 6, 1 / 6, 1 / 6])


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"conditioning": OnLabel(at="every_layer"), "prior": LabelConditional()},
        {"likelihood": Bernoulli(), "data": Digits(binarisation="static")},
        {"likelihood": Gaussian(learned="shared"), "eval": Evaluation(samples=3, batch_size=7)},
        {"ema_decay": 0.9},
    ],
    ids=["vae", "cvae", "bernoulli", "gaussian", "ema"],
)
def test_row_of_any_config_has_the_exact_identity_of_the_elbo(changes):
    """elbo = −(reconstruction + kl) to the last bit, and kl is the sum over its dimensions."""
    config = small_config(**changes)
    rows, _ = run(config, few_digits())
    assert len(rows) == 2
    for row in rows:
        assert row["val/elbo"] == -(row["val/reconstruction"] + row["val/kl"])
        assert row["val/kl"] == math.fsum(row["val/kl_per_dimension"])
        assert len(row["val/kl_per_dimension"]) == config.latent_size
        assert row["kl_estimate"] == "closed_form"


def test_evaluation_in_any_mode_restores_the_model():
    """Training mode is restored, and no weight moves."""
    exact = affine(error=1.0)
    before = {name: tensor.clone() for name, tensor in exact.model.state_dict().items()}
    for training in (True, False):
        exact.model.train(training)
        held_out_metrics(exact.model, exact.pixels, Evaluation(nll_k=2), exact.measure)
        assert exact.model.training is training
    assert all(torch.equal(before[name], tensor) for name, tensor in exact.model.state_dict().items())


def test_active_units_of_codes_counts_variances_above_the_threshold():
    """A dimension is active when its mean code's variance (not second moment) over the data is above 0.01."""
    scale = torch.tensor([1.0, 0.12, 0.08, 0.0])
    codes = torch.randn((20_000, 4), generator=torch.Generator().manual_seed(0)) * scale
    assert active_units(codes + torch.tensor([0.0, 5.0, 5.0, 5.0])) == 2
    assert active_units(torch.tensor([[0.099], [-0.099]])) == 0
    assert active_units(torch.tensor([[0.101], [-0.101]])) == 1


@torch.no_grad()
def test_active_units_of_a_labelled_model_are_relative_to_its_prior():
    """A code that only follows p(z|y) is not active: it carries nothing that the label does not."""
    exact = affine(labelled=True)
    for error, expected in ((0.0, 2), (None, 0)):
        if error is None:  # the encoder repeats the prior: μ_q = μ_p of the label
            layer = exact.model.encoder.affine[-1]
            layer.weight.zero_()
            layer.bias.zero_()
            layer.weight[:2, 6:] = exact.model.prior.mean_of.T
        scores = evaluate(exact.model, exact.pixels, Evaluation(), exact.measure)
        assert scores["active_units"] == expected


@torch.no_grad()
def test_collapsed_of_a_code_without_information_is_true():
    """With q = p the KL is 0, no unit is active, and the row says collapsed; otherwise not."""
    exact = affine(error=1.0)
    assert evaluate(exact.model, exact.pixels, Evaluation(), exact.measure)["collapsed"] is False
    layer = exact.model.encoder.affine[-1]
    layer.weight.zero_()
    layer.bias.zero_()
    scores = evaluate(exact.model, exact.pixels, Evaluation(), exact.measure)
    assert (scores["collapsed"], scores["kl"], scores["active_units"]) == (True, 0.0, 0)


def measured(config):
    """The measure of ``config``'s scores on the digits."""
    data = few_digits()
    return measure_of(config, data.validation, levels=data.levels)


def test_bits_per_dimension_of_a_mass_function_divide_by_log_2():
    """nll / (D log 2); all 17 counts equally likely are log₂ 17 bits."""
    measure = measured(small_config())
    assert bits_per_dimension(64 * math.log(17), measure) == pytest.approx(math.log2(17))
    binary = measured(small_config(data=Digits(binarisation="static"), likelihood=Bernoulli()))
    assert bits_per_dimension(64 * math.log(2), binary) == pytest.approx(1)


def test_bits_per_dimension_of_a_dequantised_density_are_those_of_integers():
    """(nll + D log 17) / (D log 2): a uniform density on [0, 1] is the uniform mass function on 17 counts."""
    measure = measured(small_config(data=Digits(dequantise=True), likelihood=Gaussian()))
    assert bits_per_dimension(0.0, measure) == pytest.approx(math.log2(17))
    assert bits_per_dimension(-64 * math.log(17), measure) == pytest.approx(0)


@pytest.mark.parametrize(
    "config",
    [
        small_config(likelihood=Gaussian()),
        small_config(data=Digits(binarisation="expected"), likelihood=Bernoulli()),
        small_config(data=Mnist(binarisation="expected"), likelihood=Bernoulli()),
    ],
    ids=["real", "expected", "expected-mnist"],
)
def test_bits_per_dimension_of_other_densities_are_none(config):
    """A density on undithered pixels and cross-entropy on grey ones have no bits per dimension."""
    assert bits_per_dimension(100.0, measured(config)) is None
    if isinstance(config.data, Digits):
        rows, _ = run(dataclasses.replace(config, epochs=1), few_digits())
        assert "val/bits_per_dimension" not in rows[0]


def test_row_of_counts_and_of_dequantised_pixels_has_bits_of_its_elbo():
    """val/bits_per_dimension is that of −elbo, for counts and for dequantised pixels."""
    for changes, scale in (
        ({}, 0.0),
        ({"data": Digits(dequantise=True), "likelihood": Gaussian(learned="shared")}, math.log(17)),
    ):
        rows, _ = run(small_config(epochs=1, **changes), few_digits())
        expected = (-rows[0]["val/elbo"] + 64 * scale) / (64 * math.log(2))
        assert rows[0]["val/bits_per_dimension"] == pytest.approx(expected)


def test_config_with_nll_k_and_grey_pixels_is_refused():
    """A config that asks for log p(x) of grey pixels is refused."""
    with pytest.raises(ValueError, match="nll_k needs a normalised likelihood"):
        small_config(data=Digits(binarisation="expected"), likelihood=Bernoulli(), eval=Evaluation(nll_k=10))

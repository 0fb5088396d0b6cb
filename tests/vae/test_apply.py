"""What is done with a trained model, as functions of tensors: against closed forms and the held-out evaluation."""

from __future__ import annotations

import dataclasses
import math
from functools import cache

import pytest
import torch

from tests.support.small import few_digits, held_out, small_config
from vae import apply
from vae.conditioning import OnLabel, OnQuadrants
from vae.config import ConfigError
from vae.corruption import Masking
from vae.evaluate import evaluate
from vae.likelihoods import Gaussian
from vae.measure import measure_of
from vae.networks import Mlp
from vae.objectives import Reconstruction, WaeMmd
from vae.posteriors import Deterministic, FullCovariance
from vae.priors import LabelConditional, Mixture, Vamp
from vae.train import build, train
from vae.train_config import Evaluation

CONFIGS = {
    "vae": small_config(),
    "cvae": small_config(conditioning=OnLabel(), prior=LabelConditional()),
    "quadrants": small_config(conditioning=OnQuadrants()),
    "vamp": small_config(prior=Vamp(components=3)),
    "mixture": small_config(prior=Mixture(components=3), posterior=FullCovariance()),
    "wae": small_config(posterior=Deterministic(), objective=WaeMmd()),
    "ae": small_config(posterior=Deterministic(), objective=Reconstruction(), corruption=Masking()),
}


@cache
def trained(name):
    """The model of ``CONFIGS[name]`` after two epochs."""
    *_, last = train(CONFIGS[name], few_digits())
    return last.model


def examples(name, count=5):
    """The first held-out x and labels, as the config sees them."""
    pixels = held_out(CONFIGS[name], few_digits())
    return pixels.batch(slice(0, count)), pixels.labels[:count]


@pytest.mark.parametrize("name", ["vae", "cvae", "quadrants", "vamp", "mixture"])
@pytest.mark.parametrize("samples", [1, 3])
def test_scores_average_to_the_row(name, samples, monkeypatch):
    """The mean of the examples' elbo and its terms is what evaluation says of the split, whatever the blocks."""
    monkeypatch.setattr(apply, "BATCH", 17)
    config = dataclasses.replace(CONFIGS[name], eval=Evaluation(samples=samples))
    data = few_digits()
    pixels = held_out(config, data)
    row = evaluate(trained(name), pixels, config.eval, measure_of(config, data.validation, levels=data.levels))
    found = list(apply.scores(trained(name), pixels, seed=config.eval.seed, samples=samples, split="validation"))
    assert [len(block["elbo"]) for block in found] == [17, 17, 6]
    for term in ("elbo", "reconstruction", "kl"):
        assert row[term] == pytest.approx(torch.cat([block[term] for block in found]).mean().item(), rel=1e-6)
    for block in found:
        assert torch.equal(-(block["reconstruction"] + block["kl"]), block["elbo"])


def test_scores_of_a_deterministic_code_have_no_bound():
    """Reconstruction and squared error alone, as the row of an autoencoder."""
    config, data = CONFIGS["ae"], few_digits()
    pixels = held_out(config, data)
    row = evaluate(trained("ae"), pixels, config.eval, measure_of(config, data.validation, levels=data.levels))
    (found,) = apply.scores(trained("ae"), pixels, seed=0, samples=1, split="validation")
    assert set(found) == {"reconstruction", "squared_error"}
    for term, values in found.items():
        assert row[term] == pytest.approx(values.mean().item(), rel=1e-6)


def test_the_squared_error_is_that_of_the_reconstruction():
    """Σ_d (E[x|z] − x)² at the posterior mean, of each example by itself."""
    x, labels = examples("cvae", 40)
    (found,) = apply.scores(trained("cvae"), held_out(CONFIGS["cvae"], few_digits()), seed=0, samples=1, split="any")
    expected = (apply.reconstruct(trained("cvae"), x, labels) - x).square().sum(1)
    torch.testing.assert_close(found["squared_error"].float(), expected)


def test_codes_are_the_posterior_of_each_example(monkeypatch):
    """Means, variances and labels in the split's order, block by block."""
    monkeypatch.setattr(apply, "BATCH", 16)
    model, (x, labels) = trained("cvae"), examples("cvae", 40)
    blocks = list(apply.codes(model, held_out(CONFIGS["cvae"], few_digits())))
    assert [len(block[2]) for block in blocks] == [16, 16, 8]
    mean, variance, found = (torch.cat(parts) for parts in zip(*blocks, strict=True))
    with torch.no_grad():
        posterior = model.encode(x, model.condition(x, labels))
    torch.testing.assert_close(mean, posterior.mean)
    torch.testing.assert_close(variance, posterior.variance)
    assert torch.equal(found, labels)


def test_temperature_scales_the_noise():
    """At 0 every sample of a standard normal prior is E[x|z = 0]; another temperature is another sample."""
    model = trained("vae")
    with torch.no_grad():
        middle = model.reconstruct(torch.zeros(1, model.latent_size), None)
    torch.testing.assert_close(apply.sample(model, 4, seed=3, temperature=0.0), middle.expand(4, -1))
    cool, warm = (apply.sample(model, 64, seed=3, temperature=t) for t in (0.5, 2.0))
    assert (cool - middle).square().mean() < (warm - middle).square().mean()


@pytest.mark.parametrize("name", ["vae", "cvae", "vamp", "mixture", "wae"])
def test_samples_repeat(name):
    """The same seed is the same samples, in [0, 1]; another seed is others."""
    model = trained(name)
    first = apply.sample(model, 6, seed=1)
    assert first.shape == (6, 64)
    assert 0 <= first.min() <= first.max() <= 1
    torch.manual_seed(8)
    assert torch.equal(first, apply.sample(model, 6, seed=1))
    assert not torch.equal(first, apply.sample(model, 6, seed=2))


def test_a_labelled_model_samples_the_label_it_is_asked_for():
    """The same noise under two labels is two samples, each decoded under its own."""
    model = trained("cvae")
    asked = apply.sample(model, 2, seed=1, labels=torch.tensor([3, 7]))
    threes = apply.sample(model, 2, seed=1, labels=torch.tensor([3, 3]))
    assert torch.equal(asked[0], threes[0])
    assert not torch.equal(asked[1], threes[1])


@pytest.mark.parametrize(("name", "word"), [("ae", "deterministic"), ("quadrants", "inpaint")])
def test_what_can_not_be_sampled_is_refused(name, word):
    """A code that no prior describes, and a model that is told a part of each image."""
    with pytest.raises(ConfigError, match=word):
        apply.sample(trained(name), 2, seed=0)


def test_denoising_sees_the_corrupted_and_not_the_clean():
    """What comes back is made of the corrupted input alone; nothing corrupted is what it was."""
    model, (x, labels) = trained("ae"), examples("ae")
    corrupted, cleaned = apply.denoise(model, x, labels, Masking(fraction=1.0), seed=0)
    assert torch.equal(torch.zeros_like(x), corrupted)
    torch.testing.assert_close(apply.reconstruct(model, torch.zeros_like(x), labels), cleaned)
    untouched, again = apply.denoise(model, x, labels, Masking(fraction=0.0), seed=0)
    assert torch.equal(x, untouched)
    torch.testing.assert_close(apply.reconstruct(model, x, labels), again)


@pytest.mark.parametrize("name", ["vae", "cvae", "ae"])
def test_inpainting_keeps_what_is_known(name):
    """Known pixels stay bit for bit, and what the missing ones were plays no part."""
    model, (x, labels) = trained(name), examples(name)
    missing = torch.arange(64) >= 32
    filled = apply.inpaint(model, x, labels, missing, steps=4)
    assert torch.equal(x[:, ~missing], filled[:, ~missing])
    other = torch.where(missing, 1 - x, x)
    assert torch.equal(filled, apply.inpaint(model, other, labels, missing, steps=4))


def test_inpainting_by_an_affine_model_solves_the_equations():
    """E[x|z] of an affine autoencoder is A x + b; iterating ends where the missing part reproduces itself."""
    config = small_config(
        network=Mlp(hidden=()), posterior=Deterministic(), objective=Reconstruction(), likelihood=Gaussian(), epochs=1
    )
    model = build(config, few_digits())
    x, labels = examples("ae", 2)
    missing = torch.arange(64) % 3 == 0
    with torch.no_grad():
        # A small decoder: the iteration contracts.
        model.decoder.affine[-1].weight.mul_(0.2)
    shift = apply.reconstruct(model, torch.zeros(1, 64), labels[:1])[0]
    matrix = (apply.reconstruct(model, torch.eye(64), labels.new_zeros(64)) - shift).T
    there, here = matrix[missing][:, missing], matrix[missing][:, ~missing]
    wanted = (here @ x[:, ~missing].T + shift[missing, None]).double()
    expected = torch.linalg.solve(torch.eye(len(there), dtype=torch.float64) - there.double(), wanted).T
    found = apply.inpaint(model, x, labels, missing, steps=60)[:, missing]
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=1e-4)


def test_a_model_told_a_part_makes_the_rest_of_it_and_the_middle_of_its_prior():
    """One decoding of z = 0 under the seen pixels; another mask is refused."""
    model, (x, labels) = trained("quadrants"), examples("quadrants")
    missing = torch.ones(64, dtype=torch.bool)
    missing[model.conditioning.seen] = False
    filled = apply.inpaint(model, x, labels, missing)
    with torch.no_grad():
        expected = model.reconstruct(torch.zeros(5, model.latent_size), x[:, ~missing])
    torch.testing.assert_close(filled, expected)
    assert torch.equal(filled, apply.inpaint(model, torch.where(missing, 1 - x, x), labels, missing))
    with pytest.raises(ConfigError, match="no other mask"):
        apply.inpaint(model, x, labels, ~missing)


@pytest.mark.parametrize("path", ["linear", "spherical"])
def test_interpolation_begins_and_ends_at_the_reconstructions(path):
    """The first and the last decoding are those of the two codes."""
    model, (x, labels) = trained("vae"), examples("vae", 2)
    way = apply.interpolate(model, x, labels, steps=5, path=path)
    ends = apply.reconstruct(model, x, labels)
    torch.testing.assert_close(way[[0, -1]], ends)


def test_the_middle_of_each_path():
    """Halfway of a line is the mean code; of an arc between codes of length r, a code of length r."""
    model = build(small_config(latent_size=2, network=Mlp(hidden=())), few_digits())
    x, labels = examples("vae", 2)
    ends = torch.tensor([[2.0, 0.0], [0.0, 2.0]])
    model.encode = lambda *_: Deterministic().read(ends, 2)
    model.reconstruct = lambda z, *_: z
    expected = {"linear": torch.tensor([1.0, 1.0]), "spherical": torch.tensor([math.sqrt(2.0), math.sqrt(2.0)])}
    for path, middle in expected.items():
        torch.testing.assert_close(middle, apply.interpolate(model, x, labels, steps=3, path=path)[1])
    for same in (torch.ones(2, 2), torch.tensor([[1.0, 0.0], [-1.0, 0.0]])):
        model.encode = lambda *_, same=same: Deterministic().read(same, 2)
        line = torch.lerp(same[0], same[1], torch.linspace(0, 1, 3)[:, None])
        torch.testing.assert_close(line, apply.interpolate(model, x, labels, steps=3, path="spherical"))


def test_a_traversal_moves_one_dimension_by_standard_deviations_of_the_prior():
    """z_d goes from m − 2s to m + 2s of p(z|y), the other dimensions stay at the example's code."""
    model, (x, labels) = trained("cvae"), examples("cvae", 1)
    with torch.no_grad():
        model.prior.mean_of[labels] = torch.tensor([[1.0, -2.0, 0.5]])
        model.prior.log_variance_of[labels] = torch.tensor([[0.0, 2.0, -1.0]])
        condition = model.condition(x, labels)
        code = model.encode(x, condition).mean[0]
        for row, dimension in enumerate((2, 0)):
            deviation = math.exp((-1.0, 0.0)[row] / 2)
            for column, value in enumerate((-2.0, 0.0, 2.0)):
                z = code.clone()
                z[dimension] = (0.5, 1.0)[row] + value * deviation
                found = apply.traverse(model, x, labels, steps=3, reach=2.0, dimensions=[2, 0])[row, column]
                torch.testing.assert_close(model.reconstruct(z[None], condition)[0], found)
    assert apply.traverse(model, x, labels, steps=4, reach=1.0).shape == (3, 4, 64)


def test_moments_of_a_mixture():
    """Of draws: mean Σ w m, variance Σ w (s² + m²) − mean², within the draws' own error."""
    model = build(CONFIGS["mixture"], few_digits())
    with torch.no_grad():
        model.prior.logits.copy_(torch.tensor([0.0, 1.0, -1.0]))
        model.prior.log_variances.normal_()
    prior = model.prior
    weights = torch.softmax(prior.logits, 0)[:, None]
    expected = (weights * prior.means).sum(0)
    second = (weights * (prior.log_variances.exp() + prior.means.square())).sum(0)
    deviation = (second - expected.square()).sqrt()
    mean, found = apply.prior_moments(model, None)
    assert ((mean - expected).abs() < 5 * deviation / 100).all()
    torch.testing.assert_close(found, deviation, rtol=0.1, atol=0)


def test_moments_of_codes():
    """Where no prior gives a scale, that of the codes of a split."""
    model, (x, _) = trained("ae"), examples("ae", 40)
    with torch.no_grad():
        code = model.encode(x, None).mean
    mean, deviation = apply.code_moments(model, held_out(CONFIGS["ae"], few_digits()))
    torch.testing.assert_close(code.mean(0), mean)
    torch.testing.assert_close((code - code.mean(0)).square().mean(0).sqrt(), deviation)

"""The checks that the mutants of ``test_mutants.py`` must fail: each a promise about the arithmetic, by name.

A check builds what it needs, compares with ``torch.distributions`` or with another run, and raises
AssertionError. ``test_checks.py`` runs them on the code as it is.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

import torch
from torch.distributions import Binomial, Normal, kl_divergence

import vae.data
import vae.run
import vae.train
from tests.support.small import few_digits, held_out, raw_weights, run, small_config
from vae.evaluate import held_out_metrics
from vae.measure import measure_of
from vae.objectives import Elbo
from vae.optimizers import Adam

if TYPE_CHECKING:
    from typing import Any

    from torch import Tensor

    from vae.data.pixels import Pixels
    from vae.model import VAE

CONFIG = small_config(latent_size=4)


def _model() -> VAE:
    """A model whose posterior is far from the prior: σ² of about ⅓, means of about 1."""
    model = vae.run.build(CONFIG, few_digits())
    with torch.no_grad():
        bias = model.encoder.affine[-1].bias
        bias[: model.latent_size] += 1.0
        bias[model.latent_size :] -= 1.0
    return model


def _posterior(model: VAE, x: Tensor) -> Normal:
    encoded = model.encode(x, None)
    return Normal(encoded.mean.double(), torch.exp(0.5 * encoded.log_variance.double()))


def _scores(model: VAE, pixels: Pixels, **settings: Any) -> dict[str, Any]:
    data = few_digits()
    assert data.validation is not None
    evaluation = dataclasses.replace(CONFIG.eval, **settings)
    measure = measure_of(CONFIG, data.validation, levels=data.levels)
    return vae.run.held_out_metrics(model, pixels, evaluation, measure)


@torch.no_grad()
def check_codes_follow_the_posterior() -> None:
    """In training, z given x is N(μ, σ²): mean and variance within 5 standard errors over 4,000 draws."""
    model, draws = _model(), 4000
    x = held_out(CONFIG, few_digits()).batch(slice(0, 1)).expand(draws, -1)
    seen: list[Tensor] = []
    decode = model.decode
    model.decode = lambda z, label: seen.append(z) or decode(z, label)  # type: ignore[method-assign, func-returns-value]
    model.terms(x, None, torch.randn((1, draws, 4), generator=torch.Generator().manual_seed(1)))
    _assert_moments(seen[0].double(), _posterior(model, x[:1]))


@torch.no_grad()
def check_evaluated_codes_follow_the_posterior() -> None:
    """In evaluation, z given x is N(μ, σ²) too."""
    model, draws = _model(), 4000
    pixels = held_out(CONFIG, few_digits(validation=1))
    seen: list[Tensor] = []
    decode = model.decode
    model.decode = lambda z, label: seen.append(z) or decode(z, label)  # type: ignore[method-assign, func-returns-value]
    _scores(model, pixels, samples=draws)
    _assert_moments(torch.cat(seen).double(), _posterior(model, pixels.batch(slice(0, 1))))


def _assert_moments(z: Tensor, expected: Normal) -> None:
    draws = len(z)
    assert draws == 4000
    error = expected.stddev / math.sqrt(draws)
    assert ((z.mean(0) - expected.mean).abs() < 5 * error).all()
    variance_error = expected.variance * math.sqrt(2 / draws)
    assert ((z.var(0) - expected.variance).abs() < 5 * variance_error).all()


@torch.no_grad()
def check_kl_is_the_closed_form_summed_over_dimensions() -> None:
    """KL, in training and in evaluation, equals torch.distributions', summed over dimensions."""
    model = _model()
    pixels = held_out(CONFIG, few_digits())
    x = pixels.batch(slice(0, len(pixels)))
    posterior = _posterior(model, x)
    expected = kl_divergence(posterior, Normal(torch.zeros(4).double(), torch.ones(4).double())).sum(1)
    terms = model.terms(x, None, torch.zeros(1, len(x), 4))
    assert torch.allclose(expected, terms.kl.sum(1).double(), rtol=1e-4, atol=1e-5)
    assert math.isclose(expected.mean().item(), _scores(model, pixels)["kl"], rel_tol=1e-4)


@torch.no_grad()
def check_reconstruction_is_summed_over_dimensions() -> None:
    """The reconstruction term is −log p(x|z) of torch.distributions' binomial, summed over pixels."""
    model = _model()
    pixels = held_out(CONFIG, few_digits())
    x = pixels.batch(slice(0, len(pixels)))
    noise = torch.zeros(1, len(x), 4)
    logits = model.decode(model.encode(x, None).mean, None).double()
    expected = -Binomial(16, logits=logits).log_prob((x * 16).round().double()).sum(1)
    terms = model.terms(x, None, noise)
    assert torch.allclose(expected, terms.reconstruction[0].double(), rtol=1e-4)
    # Evaluation draws z where this does not; the two agree to within what the draw is worth, not to a factor.
    assert 0.8 < _scores(model, pixels)["reconstruction"] / expected.mean().item() < 1.5


def check_training_minimises_the_bound() -> None:
    """``train/loss`` is reconstruction + β·KL of the same batches, and training lowers the held-out −ELBO."""
    config = dataclasses.replace(CONFIG, epochs=6, objective=Elbo(beta=0.5), optimizer=Adam(lr=1e-2))
    rows, _ = run(config, few_digits())
    for row in rows:
        expected = row["train/reconstruction"] + 0.5 * row["train/kl"]
        assert math.isclose(expected, row["train/loss"], rel_tol=1e-5)
    assert rows[-1]["val/reconstruction"] < rows[0]["val/reconstruction"] - 50


def check_row_identities() -> None:
    """In every row ``elbo = −(reconstruction + kl)`` exactly; ``kl`` ≥ 0 is the sum over its dimensions."""
    rows, _ = run(dataclasses.replace(CONFIG, epochs=3), few_digits())
    for row in rows:
        assert row["val/elbo"] == -(row["val/reconstruction"] + row["val/kl"])
        assert row["val/kl"] >= 0
        assert row["val/kl"] == math.fsum(row["val/kl_per_dimension"])
        assert row["train/kl"] >= 0


def check_held_out_elbo_ignores_beta() -> None:
    """The same weights score the same held-out ELBO, at β = 1, whatever β trained them."""
    data = few_digits()
    config = dataclasses.replace(CONFIG, epochs=1)
    scores = []
    for beta in (1.0, 4.0):
        trained = dataclasses.replace(config, objective=Elbo(beta=beta))
        for result in vae.train.train(trained, data):
            row, model = result.row, result.model
            pixels = held_out(trained, data)
            assert data.validation is not None
            measure = measure_of(trained, data.validation, levels=data.levels)
            # This module's own name for it: what a changed loop calls is compared with what was meant.
            expected = held_out_metrics(model, pixels, trained.eval, measure)
            for name in ("elbo", "reconstruction", "kl"):
                assert expected[name] == row[f"val/{name}"]
            scores.append(row["val/elbo"])
    assert scores[0] != scores[1]


def check_weights_follow_the_seed() -> None:
    """The starting weights are a function of the config's seed, whatever was drawn before."""
    torch.manual_seed(1)
    first = raw_weights(vae.run.build(CONFIG, few_digits()))
    torch.manual_seed(2)
    again = raw_weights(vae.run.build(CONFIG, few_digits()))
    other = raw_weights(vae.run.build(dataclasses.replace(CONFIG, seed=1), few_digits()))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def check_selection_never_sees_the_test_split() -> None:
    """No test image is among those that select, and rows say that they are of validation."""
    data = vae.data.load_training(CONFIG.data, None)
    test = vae.data.load_test(CONFIG.data, None)
    assert data.validation is not None
    tested = {image.numpy().tobytes() for image in test.images}
    assert not tested & {image.numpy().tobytes() for image in data.validation.images}
    assert not tested & {image.numpy().tobytes() for image in data.train.images}
    rows, _ = run(dataclasses.replace(CONFIG, epochs=1), data)
    assert f"/validation@{data.validation.digest[:12]}" in rows[0]["measure"]
    assert data.validation.digest != test.digest


CHECKS = [value for name, value in sorted(globals().items()) if name.startswith("check_")]

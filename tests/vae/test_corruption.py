"""Corruption: what the encoder sees, what stays clean, and what held-out numbers are of."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from tests.support.small import few_digits, held_out, noise_images, run, small_config
from vae.corruption import GaussianCorruption, Masking, NoCorruption, SaltAndPepper
from vae.evaluate import denoise_error, evaluate
from vae.measure import measure_of
from vae.model import VAE
from vae.objectives import Reconstruction
from vae.posteriors import Deterministic
from vae.train import build, train
from vae.train_config import Evaluation

X = torch.full((400, 250), 0.4)
CORRUPTIONS = {
    "gaussian": GaussianCorruption(std=0.5),
    "masking": Masking(fraction=0.3),
    "salt_and_pepper": SaltAndPepper(fraction=0.3),
}
EACH = pytest.mark.parametrize("corruption", CORRUPTIONS.values(), ids=CORRUPTIONS)


def corrupted(corruption, x=X, seed=1):
    """``x`` corrupted with the draws of ``seed``."""
    return corruption.apply(x, torch.Generator().manual_seed(seed))


def share(values):
    """The fraction of true ones."""
    return values.double().mean().item()


def test_none_changes_nothing():
    """The encoder is given x itself."""
    assert NoCorruption().apply(X) is X


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.3, 1.0])
def test_masking(fraction):
    """A fraction of the dimensions, within 4 standard errors, is 0; all others are as they were."""
    seen = corrupted(Masking(fraction=fraction))
    assert abs(share(seen == 0) - fraction) <= 4 * math.sqrt(fraction * (1 - fraction) / X.numel())
    assert ((seen == 0) | (seen == X)).all()


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.3, 1.0])
def test_salt_and_pepper(fraction):
    """Half of the fraction is 0 and half is 1, within 4 standard errors; all others are as they were."""
    seen, half = corrupted(SaltAndPepper(fraction=fraction)), fraction / 2
    for value in (0, 1):
        assert abs(share(seen == value) - half) <= 4 * math.sqrt(half * (1 - half) / X.numel())
    assert ((seen == 0) | (seen == 1) | (seen == X)).all()


def test_gaussian():
    """The noise has mean 0 and the given spread, within 4 standard errors, and nothing is clipped."""
    noise = (corrupted(GaussianCorruption(std=0.5)) - X).double()
    count = X.numel()
    assert abs(noise.mean().item()) < 4 * 0.5 / math.sqrt(count)
    assert abs(noise.std().item() - 0.5) < 4 * 0.5 / math.sqrt(2 * count)
    beyond = share(noise.abs() > 1.0)  # two standard deviations; of x = 0.4, a clipped one would never go below −0.4
    assert beyond == pytest.approx(math.erfc(math.sqrt(2)), abs=4 * math.sqrt(0.046 / count))


@EACH
def test_dimensions_are_corrupted_independently(corruption):
    """What happens to a dimension says nothing of its neighbours, in the row or in the column."""
    changed = (corrupted(corruption) - X).double()
    for one, other in ((changed[:, 1:], changed[:, :-1]), (changed[1:], changed[:-1])):
        pairs = torch.stack([one.flatten(), other.flatten()])
        assert abs(torch.corrcoef(pairs)[0, 1].item()) < 4 / math.sqrt(pairs.shape[1])


@EACH
def test_a_generator_fixes_the_draws_and_training_has_none(corruption):
    """The same seed corrupts alike, another otherwise; without a generator torch's own is used."""
    assert torch.equal(corrupted(corruption), corrupted(corruption))
    assert not torch.equal(corrupted(corruption), corrupted(corruption, seed=2))
    torch.manual_seed(1)
    first = corruption.apply(X)
    again = corruption.apply(X)
    assert not torch.equal(first, again)
    torch.manual_seed(1)
    assert torch.equal(first, corruption.apply(X))


@EACH
@torch.no_grad()
def test_the_target_is_clean(corruption):
    """The terms of a corrupted batch: q from what is seen, −log p(x|z) of x itself."""
    config = small_config(corruption=corruption)
    model = build(config, few_digits())
    x = held_out(config, few_digits()).batch(slice(0, 10))
    seen, noise = corrupted(corruption, x), torch.randn(2, 10, 3)
    terms = model.terms(x, None, noise, seen)
    q = model.encode(seen, None)
    assert torch.equal(q.sample(noise), terms.z)
    assert torch.equal(q.kl_to_standard_normal(), terms.kl)
    for z, found in zip(terms.z, terms.reconstruction, strict=True):
        assert torch.allclose(model.likelihood.nll(model.decode(z, None), x).sum(1), found, rtol=1e-5)
        assert not torch.allclose(model.nll(z[None], None, (seen.clamp(0, 1) * 16).round() / 16)[0], found, rtol=1e-3)


@EACH
def test_training_corrupts_anew_what_the_encoder_sees(corruption, monkeypatch):
    """In the loop x is the clean batch; what is seen differs from it, and from epoch to epoch."""
    config = small_config(corruption=corruption, batch_size=96)  # one step an epoch
    calls = []
    right = VAE.terms

    def watched(self, x, condition, noise, seen=None, nll=None):
        if self.training:  # Evaluation calls it too, on clean images.
            calls.append((x.clone(), seen.clone()))
        return right(self, x, condition, noise, seen, nll)

    monkeypatch.setattr(VAE, "terms", watched)
    list(train(config, few_digits()))
    clean = few_digits().train.images.flatten(1).float() / 16
    changed = []
    for x, seen in calls:
        assert sorted(x.tolist()) == sorted(clean.tolist())
        assert share(x != seen) > 0.1  # of digits, where half of the pixels are 0 and masking changes none of those
        changed.append(sorted((x != seen).sum(1).tolist()) + sorted((seen - x).sum(1).tolist()))
    assert len(calls) == 2
    assert changed[0] != changed[1]


def scored(config, data=None):
    """The last model of a run, its row, the held-out pixels and their measure."""
    data = data or few_digits()
    *_, last = train(config, data)
    return last.model, last.row, held_out(config, data), measure_of(config, data.validation, levels=data.levels)


@EACH
def test_held_out_bounds_are_of_clean_input(corruption):
    """A row's bound is that of its model on the images as they are; denoise_error comes besides."""
    config = small_config(corruption=corruption)
    model, row, pixels, measure = scored(config)
    clean = evaluate(model, pixels, config.eval, measure)
    assert "denoise_error" not in clean
    for name, value in clean.items():
        assert row[f"val/{name}"] == value
    assert row["val/denoise_error"] > 0
    rows, _ = run(small_config(), few_digits())
    assert "val/denoise_error" not in rows[0]


@EACH
def test_the_denoise_error_is_of_corrupted_input_and_clean_target(corruption):
    """Σ_d (E[x|z] − x)² at the posterior mean of what is seen, averaged over examples; in float64 by hand."""
    config = small_config(corruption=corruption, posterior=Deterministic(), objective=Reconstruction())
    model, row, pixels, _ = scored(config)
    x = pixels.batch(slice(None))
    found = []
    with torch.no_grad():
        for seed in range(40):
            z = model.encode(corrupted(corruption, x, seed), None).mean
            found.append((model.reconstruct(z, None) - x).double().square().sum(1).mean().item())
    found = torch.tensor(found)
    # The row's is one such draw, with seeds of its own.
    assert abs(row["val/denoise_error"] - found.mean().item()) < 5 * found.std().item()
    assert found.std().item() < 0.2 * found.mean().item()


@EACH
@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 3, 1)], ids=["64", "3"])
def test_the_denoise_error_follows_the_evaluation_seed_alone(corruption, shape):
    """The same whatever was drawn before and however many images are evaluated at once; another seed, another number."""
    data = noise_images(shape, levels=16, validation=45)
    config = small_config(corruption=corruption)
    model, pixels = build(config, data), held_out(config, data)

    def error(**settings):
        return denoise_error(model, pixels, Evaluation(**settings), corruption, split="validation")

    first = error()
    torch.manual_seed(123)
    assert error() == first
    for batch_size in (45, 7, 1):
        assert error(batch_size=batch_size) == pytest.approx(first, rel=1e-6)
    assert error(seed=1) != pytest.approx(first, rel=1e-6)


def test_every_trial_denoises_the_same_images():
    """The training seed has no part in it: the same weights have the same error under configs of two seeds."""
    config = small_config(corruption=Masking())
    model, row, pixels, measure = scored(config)
    other = dataclasses.replace(config, seed=5)
    again = evaluate(model, pixels, other.eval, measure, other.corruption)
    assert again["denoise_error"] == row["val/denoise_error"]

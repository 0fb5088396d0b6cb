"""From integer pixels to what a model sees."""

from __future__ import annotations

import math

import pytest
import torch

from tests.support.small import few_digits, noise_images, small_config
from vae.data import Digits
from vae.data.pixels import pixels_of
from vae.likelihoods import Bernoulli, Gaussian
from vae.train_config import Evaluation

ALL = slice(None)
CPU = torch.device("cpu")


def seen(data=None, *, held_out, seed=0, **how):
    """The pixels of training or of validation as a config with this binarisation has them."""
    data = data or few_digits()
    likelihood = {"none": None, "gaussian": Gaussian()}.get(how.get("binarisation", "none"), Bernoulli())
    if how.get("dequantise"):
        likelihood = Gaussian()
    changes = {"likelihood": likelihood} if likelihood else {}
    config = small_config(data=Digits(**how), eval=Evaluation(seed=seed), **changes)
    return pixels_of(data.validation if held_out else data.train, config, data.levels, CPU, held_out=held_out)


@pytest.mark.parametrize("held_out", [False, True])
@pytest.mark.parametrize("binarisation", ["none", "expected"])
def test_untouched_pixels_are_divided_by_the_largest_value(held_out, binarisation):
    """x = k / n in [0, 1], the integers recoverable."""
    pixels = seen(held_out=held_out, binarisation=binarisation)
    split = few_digits().validation if held_out else few_digits().train
    x = pixels.batch(ALL)
    assert x.dtype == torch.float32
    assert torch.equal((x * 16).round().to(torch.uint8), split.images.flatten(1))
    assert x.min() >= 0
    assert x.max() == 1
    assert len(pixels) == len(split.images)


def grey(levels=255, examples=4000):
    """Many copies of one image of every grey from black to white."""
    data = noise_images((1, 1, levels + 1), levels=levels, train=examples, validation=examples)
    for split in (data.train, data.validation):
        split.images[:] = torch.arange(levels + 1, dtype=torch.uint8)
    return data


@pytest.mark.parametrize(
    ("binarisation", "held_out"), [("static", False), ("static", True), ("dynamic", False), ("dynamic", True)]
)
@pytest.mark.parametrize("levels", [16, 255])
def test_binarised_pixels_are_one_as_often_as_they_are_grey(binarisation, held_out, levels):
    """P(1) = k / n for every k, black always 0 and white always 1; by 5 standard errors over 4,000 draws."""
    x = seen(grey(levels), held_out=held_out, binarisation=binarisation).batch(ALL)
    assert set(x.unique().tolist()) == {0.0, 1.0}
    expected = torch.arange(levels + 1) / levels
    error = 5 * (expected * (1 - expected) / len(x)).sqrt()
    assert ((x.mean(0) - expected).abs() <= error).all()


def test_dynamic_draws_anew_in_training_alone():
    """Training sees another binarisation each time; what is held out, and static, is one for ever."""
    for held_out, binarisation, again in (
        (False, "dynamic", False),
        (True, "dynamic", True),
        (False, "static", True),
        (True, "static", True),
    ):
        pixels = seen(held_out=held_out, binarisation=binarisation)
        assert torch.equal(pixels.batch(ALL), pixels.batch(ALL)) is again
        if again:
            torch.manual_seed(77)
            assert torch.equal(seen(held_out=held_out, binarisation=binarisation).batch(ALL), pixels.batch(ALL))
            other = seen(held_out=held_out, binarisation=binarisation, seed=1).batch(ALL)
            assert not torch.equal(other, pixels.batch(ALL))


@pytest.mark.parametrize("how", [{"binarisation": "static"}, {"dequantise": True}], ids=str)
def test_each_split_has_draws_of_its_own(how):
    """The same images in training and in validation are not binarised, or dequantised, alike."""
    data = grey(16)
    assert torch.equal(data.train.images, data.validation.images)
    kept, out = (seen(data, held_out=held_out, **how).batch(ALL) for held_out in (False, True))
    assert not torch.equal(kept[:100], out[:100])


def test_static_and_dynamic_hold_out_the_same_draw():
    """They are scored on the same binary images."""
    static, dynamic = (seen(held_out=True, binarisation=how).batch(ALL) for how in ("static", "dynamic"))
    assert torch.equal(static, dynamic)


@pytest.mark.parametrize("held_out", [False, True])
def test_dequantised_pixels_fill_their_steps(held_out):
    """x = (k + u) / (n + 1), u uniform in [0, 1): each level has its own step, and the integers come back."""
    data = grey(16)
    pixels = seen(data, held_out=held_out, dequantise=True)
    x = pixels.batch(ALL)
    assert torch.equal((x * 17).floor(), torch.arange(17.0).expand(len(x), -1))
    assert x.max() < 1
    u = x * 17 - torch.arange(17)
    assert abs(u.mean().item() - 0.5) < 5 * math.sqrt(1 / 12 / u.numel())
    assert torch.equal(pixels.batch(ALL), pixels.batch(ALL)) is held_out


@pytest.mark.parametrize("index", [[3, 3, 0], [95]])
def test_batches_by_index_are_rows_of_the_whole(index):
    """A batch is the examples that were asked for, in that order, twice where asked twice."""
    pixels = seen(held_out=False)
    assert torch.equal(pixels.batch(torch.tensor(index)), pixels.batch(ALL)[index])
    assert torch.equal(pixels.batch(slice(2, 5)), pixels.batch(ALL)[2:5])


@pytest.mark.parametrize(
    "how",
    [{}, {"binarisation": "expected"}, {"binarisation": "static"}, {"binarisation": "dynamic"}, {"dequantise": True}],
    ids=str,
)
@pytest.mark.parametrize("held_out", [False, True])
def test_the_mean_is_that_of_what_is_seen(how, held_out):
    """``mean`` is the mean of x over examples and draws."""
    data = grey(16)
    pixels = seen(data, held_out=held_out, **how)
    mean = torch.stack([pixels.batch(ALL).mean(0) for _ in range(5)]).mean(0)
    assert mean.shape == pixels.mean().shape == (17,)
    drawn = {"dynamic": 0.02, None: 0.002 if how else 0.0}.get(how.get("binarisation"), 0.0)
    assert torch.allclose(mean, pixels.mean(), atol=1e-6 if held_out else drawn + 1e-6)


def test_labels_stay_with_their_images():
    """Labels are in the order of the rows."""
    assert torch.equal(seen(held_out=True).labels, few_digits().validation.labels)

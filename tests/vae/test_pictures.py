"""Pictures: PNGs of the size that their grid asks for, of what they say."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from tests.support.small import few_digits, held_out, noise_images, small_config
from vae.conditioning import OnLabel
from vae.data import Digits
from vae.data.pixels import pixels_of
from vae.likelihoods import Bernoulli
from vae.networks import Conv, Mlp
from vae.pictures import reconstructions, samples
from vae.train import build

SHAPES = [(1, 8, 8), (1, 28, 28), (3, 32, 32), (2, 5, 7)]


def opened(content):
    """The picture, decoded whole; its format checked."""
    image = Image.open(io.BytesIO(content))
    assert image.format == "PNG"
    image.load()
    return image


def cell(shape):
    """Width and height of one image with its border: small ones are enlarged to at least 28."""
    _, height, width = shape
    factor = -(-28 // max(height, width)) if max(height, width) < 28 else 1
    return width * factor + 2, height * factor + 2


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_sizes(shape):
    """8 columns; a row of originals above a row of reconstructions; colour where there are three channels."""
    data = noise_images(shape, validation=20)
    model = build(small_config(), data)
    width, height = cell(shape)
    pixels = held_out(small_config(), data)
    for count, rows in ((8, 2), (9, 4), (20, 6), (32, 6)):
        image = opened(reconstructions(model, pixels, count=count))
        assert image.size == (8 * width, rows * height)
        assert image.mode == ("RGB" if shape[0] == 3 else "L")
    assert opened(reconstructions(model, pixels, count=3)).size == (3 * width, 2 * height)
    for count, rows in ((8, 1), (64, 8)):
        assert opened(samples(model, seed=0, count=count)).size == (8 * width, rows * height)


@pytest.mark.parametrize(("classes", "rows"), [(3, 3), (10, 10), (47, 16)])
def test_a_labelled_model_shows_a_row_for_each_label(classes, rows):
    """8 samples of each of its first 16 labels."""
    data = noise_images((1, 8, 8), classes=classes)
    model = build(small_config(conditioning=OnLabel()), data)
    width, height = cell((1, 8, 8))
    assert opened(samples(model, seed=0)).size == (8 * width, rows * height)


def test_originals_are_the_originals():
    """The first row shows the subset's first examples, enlarged by whole factors, white on black."""
    data = few_digits()
    model = build(small_config(), data)
    pixels = held_out(small_config(), data)
    image = opened(reconstructions(model, pixels))
    values = torch.from_numpy(np.array(image)).long()
    for column in range(8):
        shown = values[1:33:4, 34 * column + 1 : 34 * column + 33 : 4]
        expected = (data.validation.images[pixels.subset(32)[column], 0].float() / 16 * 255).round()
        assert torch.equal(shown, expected.long())


def test_reconstructions_are_below():
    """The second row is E[x|z] at the posterior mean."""
    data = few_digits()
    config = small_config()
    model = build(config, data)
    image = opened(reconstructions(model, held_out(config, data)))
    values = torch.from_numpy(np.array(image)).long()
    with torch.no_grad():
        x = held_out(config, data).batch(held_out(config, data).subset(32)[:8])
        back = model.likelihood.mean(model.decode(model.encode(x, None).mean, None)).view(8, 8, 8)
    for column in range(8):
        shown = values[35:67:4, 34 * column + 1 : 34 * column + 33 : 4]
        assert torch.equal(shown, (back[column] * 255).round().long())


def test_pictures_repeat():
    """The same model and seed are the same bytes, whatever was drawn before; another seed is another picture."""
    model = build(small_config(network=Mlp(hidden=(8,), dropout=0.5)), few_digits())
    first = samples(model, seed=0)
    torch.manual_seed(9)
    model.train()
    assert samples(model, seed=0) == first
    assert samples(model, seed=1) != first


def test_values_outside_the_range_are_shown_as_black_or_white():
    """A Gaussian decoder's means may leave [0, 1]; the picture doesn't wrap around."""
    model = build(small_config(network=Conv(channels=(2,), dense=4)), few_digits())
    model.likelihood.mean = lambda output: torch.full_like(output, 1.7)
    image = opened(samples(model, seed=0, count=8))
    assert image.getpixel((5, 5)) == 255
    model.likelihood.mean = lambda output: torch.full_like(output, -0.7)
    assert opened(samples(model, seed=0, count=8)).getpixel((5, 5)) == 0


def test_pictures_of_training_examples():
    """Where nothing is held out, what was trained on is shown, binarised as training sees it."""
    config = small_config(data=Digits(binarisation="dynamic"), likelihood=Bernoulli())
    pixels = pixels_of(few_digits().train, config, 16, torch.device("cpu"), held_out=False)
    image = opened(reconstructions(build(config, few_digits()), pixels))
    assert image.size == (8 * 34, 8 * 34)

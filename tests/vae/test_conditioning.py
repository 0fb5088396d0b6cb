"""Conditioning: what the model is told, and what is left to be scored."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Bernoulli as TorchBernoulli
from torch.distributions import Normal

from tests.support.small import few_digits, held_out, noise_images, run, small_config
from vae.conditioning import OnLabel, OnQuadrants, Unconditional, seen_pixels
from vae.config import ConfigError
from vae.data import Digits
from vae.evaluate import evaluate
from vae.likelihoods import Bernoulli, Gaussian
from vae.measure import measure_of
from vae.networks import Conv, Mlp
from vae.train import build

ALL = ("top_left", "top_right", "bottom_left", "bottom_right")
SHAPES = {"even": (1, 4, 6), "odd": (1, 5, 7), "colour": (3, 5, 4), "smallest": (1, 2, 2)}
EACH_SHAPE = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)


@EACH_SHAPE
def test_the_quadrants_divide_the_image(shape):
    """Each pixel of each channel is in exactly one; the middle row and column of odd sizes go to bottom and right."""
    parts = torch.stack([seen_pixels(shape, [name]) for name in ALL])
    assert (parts.sum(0) == 1).all()
    channels, height, width = shape
    top, left = height // 2, width // 2
    sizes = [top * left, top * (width - left), (height - top) * left, (height - top) * (width - left)]
    assert parts.sum((1, 2, 3)).tolist() == [channels * size for size in sizes]
    assert parts[0][:, 0, 0].all()
    assert parts[1][:, 0, -1].all()
    assert parts[2][:, -1, 0].all()
    assert parts[3][:, -1, -1].all()


def test_a_quadrant_by_hand():
    """Of 3×3 the top left is one pixel; with the bottom right it is five."""
    assert seen_pixels((1, 3, 3), ["top_left"])[0].int().tolist() == [[1, 0, 0], [0, 0, 0], [0, 0, 0]]
    assert seen_pixels((1, 3, 3), ["top_left", "bottom_right"])[0].int().tolist() == [[1, 0, 0], [0, 1, 1], [0, 1, 1]]


def model_of(shape, observed=("bottom_left",), **changes):
    """A model that is given ``observed``, its config, x of some images and the condition made of them."""
    data = noise_images(shape, levels=16)
    config = small_config(conditioning=OnQuadrants(observed=observed), **changes)
    model = build(config, data)
    pixels = held_out(config, data)
    x = pixels.batch(slice(0, 5))
    return model, config, x, model.condition(x, pixels.labels[:5]), data


@torch.no_grad()
@EACH_SHAPE
@pytest.mark.parametrize("observed", [("bottom_left",), ("top_right", "bottom_left"), ALL[:3]], ids="+".join)
def test_only_unseen_pixels_are_scored(shape, observed):
    """Whatever the decoder says of a seen pixel changes nothing; each unseen one counts, and all are summed."""
    model, _, x, _, _ = model_of(shape, observed)
    seen = seen_pixels(shape, observed).flatten()
    output = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    expected = model.likelihood.nll(output, x)[:, ~seen].sum(1)
    assert torch.allclose(expected, model.score(output, x))
    for pixel in range(len(seen)):
        changed = output.clone()
        changed[:, pixel] += 3.0
        same = torch.equal(model.score(output, x), model.score(changed, x))
        assert same == bool(seen[pixel])


@torch.no_grad()
def test_a_likelihood_of_two_outputs_is_scored_by_pixel_too():
    """With a variance for each pixel the score is torch's normal over the unseen ones."""
    model, _, x, _, _ = model_of((1, 3, 4), likelihood=Gaussian(learned="per_pixel", variance=0.5))
    output = 0.3 * torch.randn((5, 24), generator=torch.Generator().manual_seed(1))
    unseen = ~seen_pixels((1, 3, 4), ["bottom_left"]).flatten()
    p = Normal(output[:, :12], (0.5 * output[:, 12:].exp()).sqrt())
    assert torch.allclose(-p.log_prob(x)[:, unseen].sum(1), model.score(output, x), rtol=1e-4)


@torch.no_grad()
@EACH_SHAPE
def test_what_is_seen_is_given_and_shown(shape):
    """The condition is the seen pixels of x; a reconstruction shows them as they are; the others come from the decoder."""
    model, _, x, condition, _ = model_of(shape)
    seen = seen_pixels(shape, ["bottom_left"]).flatten()
    assert torch.equal(x[:, seen], condition)
    z = torch.zeros(5, 3)
    image = model.reconstruct(z, condition)
    assert torch.equal(x[:, seen], image[:, seen])
    assert torch.equal(model.likelihood.mean(model.decode(z, condition))[:, ~seen], image[:, ~seen])
    assert not torch.equal(x[:, ~seen], image[:, ~seen])
    drawn = model.sample(torch.randn(5, 3), torch.rand(5), condition)
    assert torch.equal(x[:, seen], drawn[:, seen])


@torch.no_grad()
@pytest.mark.parametrize(
    "network", [Mlp(hidden=(8,)), Conv(channels=(3, 4), dense=6)], ids=lambda network: network.kind
)
def test_the_decoder_is_told_what_is_seen_and_the_encoder_sees_all(network):
    """A seen pixel changes the decoder's word on the unseen; the encoder depends on seen and unseen pixels."""
    model, _, x, condition, _ = model_of((1, 8, 8), network=network)
    model.eval()
    z = torch.zeros(5, 3)
    assert not torch.allclose(model.decode(z, condition), model.decode(z, condition + 1.0))
    before = model.encode(x, condition).mean
    for pixel in (0, 63 - 7):  # top left, unseen; bottom left, seen
        changed = x.clone()
        changed[:, pixel] += 5.0
        assert not torch.allclose(before, model.encode(changed, condition).mean)


@pytest.mark.parametrize(
    ("conditioning", "given", "dimensions"),
    [
        (Unconditional(), "p(x)", 70),
        (OnQuadrants(), "p(x|bottom_left)", 70 - 2 * 3 * 3),
        (OnQuadrants(observed=("top_right", "bottom_left")), "p(x|bottom_left+top_right)", 70 - 2 * (8 + 9)),
        (OnQuadrants(observed=("bottom_left", "top_right")), "p(x|bottom_left+top_right)", 70 - 2 * (8 + 9)),
        (OnQuadrants(observed=ALL[:3]), "p(x|bottom_left+top_left+top_right)", 2 * 3 * 4),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_measure_says_what_is_given_and_how_much_is_scored(conditioning, given, dimensions):
    """Two channels of 5×7: the number of unseen pixels, and the quadrants in one order, however they were listed."""
    data = noise_images((2, 5, 7))
    measure = measure_of(small_config(conditioning=conditioning), data.validation, levels=data.levels)
    assert measure.dimensions == dimensions
    assert str(measure).startswith(f"{given} counts(0..255) {dimensions}d ")


@torch.no_grad()
def test_the_held_out_bound_is_of_the_unseen_pixels():
    """A decoder that says 0.25 of every pixel: −log p is that of torch's Bernoulli over unseen pixels, bits likewise."""
    data = few_digits()
    config = small_config(
        conditioning=OnQuadrants(observed=ALL[:2]), data=Digits(binarisation="static"), likelihood=Bernoulli()
    )
    model = build(config, data)
    for parameter in (*model.encoder.parameters(), *model.decoder.parameters()):
        parameter.zero_()
    model.decoder.affine[-1].bias.fill_(math.log(0.25 / 0.75))
    pixels = held_out(config, data)
    measure = measure_of(config, data.validation, levels=data.levels)
    scores = evaluate(model, pixels, config.eval, measure)
    unseen = pixels.batch(slice(None))[:, 32:]  # the lower half
    expected = -TorchBernoulli(0.25).log_prob(unseen).sum(1).mean().item()
    assert scores["kl"] == 0
    assert scores["reconstruction"] == pytest.approx(expected, rel=1e-5)
    assert scores["bits_per_dimension"] == pytest.approx(expected / (32 * math.log(2)), rel=1e-5)


@EACH_SHAPE
@pytest.mark.parametrize("observed", [("top_left",), ALL[1:]], ids="+".join)
def test_quadrants_train(shape, observed):
    """Odd sizes and colours give finite rows whose measure is theirs."""
    data = noise_images(shape, levels=16)
    rows, _ = run(small_config(conditioning=OnQuadrants(observed=observed), epochs=1), data)
    unseen = int((~seen_pixels(shape, observed)).sum())
    assert math.isfinite(rows[0]["val/elbo"])
    assert rows[0]["measure"].startswith(f"p(x|{'+'.join(sorted(observed))}) counts(0..16) {unseen}d ")


def test_copying_helps():
    """Images whose right half repeats the left: told the left half, a model scores the right better than untold."""
    data = few_digits()

    def mirrored(split):
        images = split.images.clone()
        images[..., 4:] = images[..., :4].flip(3)
        return type(split)(split.name, images, split.labels, split.digest)

    data = type(data)(
        mirrored(data.train), mirrored(data.validation), data.levels, data.num_classes, data.data_hash, data.split_hash
    )
    scores = {}
    for observed in (("top_left", "bottom_left"), ("top_left", "top_right")):
        rows, _ = run(
            small_config(conditioning=OnQuadrants(observed=observed), network=Mlp(hidden=(64,)), epochs=60), data
        )
        scores[observed] = rows[-1]["val/elbo"]
    # Both score 32 pixels, the same content up to a reflection in half of them; only the first is given their copies.
    assert scores["top_left", "bottom_left"] > scores["top_left", "top_right"] + 5


def test_labels_are_one_hot():
    """[B] -> [B, K], whatever x is; without conditioning there is no condition."""
    data = few_digits()
    model = build(small_config(conditioning=OnLabel()), data)
    found = model.condition(torch.zeros(3, 64), torch.tensor([0, 9, 4]))
    assert found.tolist() == torch.eye(10)[[0, 9, 4]].tolist()
    assert build(small_config(), data).condition(torch.zeros(3, 64), torch.tensor([0, 9, 4])) is None


def test_what_cannot_be_conditioned_on_is_refused():
    """One line with value, rule and remedy: quadrants named twice, images of one row, data without labels."""
    with pytest.raises(ValueError, match=r"at most once, got \['top_left', 'top_left'\]"):
        OnQuadrants(observed=("top_left", "top_left"))
    with pytest.raises(ConfigError, match=r"at least 2×2, got 1×5; use 'none'"):
        build(small_config(conditioning=OnQuadrants()), noise_images((1, 1, 5), levels=16))
    with pytest.raises(ConfigError, match="needs data with labels, and this set has none; use 'none'"):
        OnLabel().build((1, 4, 4), 0)
    for observed in ((), ALL):
        with pytest.raises(ValueError, match="observed"):
            OnQuadrants(observed=observed)

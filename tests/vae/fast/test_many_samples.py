"""Many samples of few examples are scored with less arithmetic and the same results."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tests.support.small import few_digits, held_out, small_config
from vae.conditioning import OnLabel, OnQuadrants, Unconditional
from vae.data import Digits
from vae.fast.cross_entropy import nll_of_seen
from vae.fast.many_samples import SAMPLES_OF_ONE, ManySamples, OfOne
from vae.likelihoods import Bernoulli, Binomial, Gaussian
from vae.networks import Conv, Mlp, Sizes
from vae.train import build

LATENT = 6
# Standard deviations of one example's codes at which all, some and no ReLU units change between off and on.
SPREADS = {"wide": 3.0, "near": 0.05, "same": 0.0}


def decoder_of(network, *, condition=0, everywhere=False):
    """Return a decoder in float64 with random weights and biases."""
    sizes = Sizes(
        shape=(1, 5, 7),
        latent=LATENT,
        posterior_outputs=2 * LATENT,
        outputs_per_dimension=2,
        encoder_condition=0,
        decoder_condition=condition,
        condition_everywhere=everywhere,
    )
    _, decoder = network.build(sizes)
    return decoder.double().eval()


def codes(spread, count=300):
    """Return codes of one example, [count, L]."""
    return (2 * torch.randn(LATENT) + spread * torch.randn(count, LATENT)).double()


@torch.no_grad()
@pytest.mark.parametrize("hidden", [(), (50,), (7, 40), (40, 7), (30, 30, 30), (1,)], ids=str)
@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("spread", SPREADS.values(), ids=SPREADS)
@pytest.mark.parametrize("told", ["nothing", "first", "everywhere"])
def test_decoder_of_one_example_equals_the_plain_decoder(hidden, activation, spread, told):
    """This holds for any depth, width and condition, and for units that are off, on or neither."""
    condition = None if told == "nothing" else torch.randn(4).double()
    size = 0 if condition is None else 4
    network = Mlp(hidden=hidden, activation=activation)
    decoder = decoder_of(network, condition=size, everywhere=told == "everywhere")
    z = codes(spread)
    expected = decoder(z, None if condition is None else condition.expand(len(z), -1))
    before = {name: value.clone() for name, value in decoder.state_dict().items()}
    of_one = OfOne(decoder)
    assert torch.allclose(of_one.decoder(condition)(z), expected, rtol=1e-11, atol=1e-11)
    times = torch.randn(expected.shape[1]).double()
    assert torch.allclose(of_one.decoder(condition, times)(z), expected * times, rtol=1e-11, atol=1e-11)
    assert all(torch.equal(value, before[name]) for name, value in decoder.state_dict().items())


@torch.no_grad()
@pytest.mark.parametrize("hidden", [(200,), (200, 200)], ids=str)
def test_decoder_of_one_example_with_equal_codes_skips_idle_units(hidden):
    """The products by the layers' outputs are left out, and matrices of L columns remain."""
    decoder = decoder_of(Mlp(hidden=hidden))
    decode = OfOne(decoder).decoder(None)
    with FlopCounterMode(display=False) as usual:
        decoder(codes(0.0), None)
    with FlopCounterMode(display=False) as less:
        decode(codes(0.0))
    widths = (LATENT, *hidden, 70)
    samples = 300
    assert usual.get_total_flops() == 2 * samples * sum(before * after for before, after in pairwise(widths))
    # Each layer computes its units from z. The remaining products of matrices do not depend on the number of samples.
    of_matrices = less.get_total_flops() - 2 * samples * LATENT * sum(widths[1:])
    assert of_matrices <= 2 * LATENT * sum(before * after for before, after in pairwise(widths[1:]))


@torch.no_grad()
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("where", ["weight", "bias"])
def test_many_samples_of_a_diverged_decoder_stay_not_finite(where, layer, value):
    """Leaving units out must not hide a NaN or an infinity."""
    config = small_config(network=Mlp(hidden=(50,)))
    model = build(config, few_digits()).eval()
    x = held_out(config, few_digits()).batch(slice(0, 2))
    decoder = model.decoder.affine
    decoder[0].bias.fill_(-1e6)
    decoder[0].bias[0] = 1
    broken = decoder[layer].bias if where == "bias" else decoder[layer].weight[:, -1]
    broken.fill_(value)
    z = torch.randn(SAMPLES_OF_ONE, 2, config.latent_size)
    one_by_one = model.nll(z, None, x).isfinite()
    assert not one_by_one.all()
    assert torch.equal(ManySamples(model).nll(z, None, x).isfinite(), one_by_one)


@torch.no_grad()
@pytest.mark.parametrize("conditioning", [Unconditional(), OnLabel(), OnQuadrants(observed=("bottom_left",))])
@pytest.mark.parametrize("likelihood", [Bernoulli(), Binomial(), Gaussian()])
@pytest.mark.parametrize(
    "network",
    [
        Mlp(hidden=(64,)),
        Mlp(hidden=(64, 32), activation="tanh"),
        Mlp(hidden=(64,), activation="gelu"),
        Mlp(hidden=(64,), normalisation="batch"),
        Mlp(hidden=(64,), dropout=0.5),
        Conv(channels=(4,)),
    ],
)
@pytest.mark.parametrize("samples", [1, 6, SAMPLES_OF_ONE - 1, SAMPLES_OF_ONE, 1203])
def test_many_samples_of_any_model_equal_the_plain_scores(conditioning, likelihood, network, samples):
    """This holds with and without a faster form of the network and the likelihood, and for any conditioning."""
    data = Digits(binarisation="static" if isinstance(likelihood, Bernoulli) else "none")
    config = small_config(conditioning=conditioning, likelihood=likelihood, data=data, network=network)
    model = build(config, few_digits()).eval()
    pixels = held_out(config, few_digits())
    x = pixels.batch(slice(0, 3))
    condition = model.condition(x, pixels.labels[:3])
    z = torch.randn(3, config.latent_size) + 0.1 * torch.randn(samples, 3, config.latent_size)
    expected = torch.cat([model.nll(some, condition, x) for some in z.split(1 if samples == 6 else 100)])
    assert torch.allclose(ManySamples(model).nll(z, condition, x), expected, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("spread", [0.1, 30.0, 1000.0])
def test_many_samples_of_very_unlikely_pixels_equal_the_plain_scores(spread):
    """If a product of sixteen probabilities underflows, logarithms are summed instead, for that example only."""
    config = small_config(network=Mlp(hidden=(64,)), likelihood=Bernoulli(), data=Digits(binarisation="static"))
    model = build(config, few_digits()).eval()
    model.decoder.affine[-1].bias.copy_(spread * torch.randn(64))
    x = torch.stack(
        [torch.zeros(64), torch.ones(64), (torch.rand(64) < 0.5).float(), (model.decoder.affine[-1].bias > 0).float()]
    )
    z = torch.randn(2 * SAMPLES_OF_ONE, len(x), config.latent_size)
    logits = model.decode_samples(z, None).unflatten(0, z.shape[:2]) * (2 * x - 1)
    vanishing = [nll_of_seen(of_one.clone()) is None for of_one in logits.unbind(1)]
    assert vanishing == [spread > 1] * 3 + [False]
    expected = model.nll(z, None, x)
    assert expected.isfinite().all()
    assert torch.allclose(ManySamples(model).nll(z, None, x), expected, rtol=1e-5, atol=1e-4)

"""Networks: any size of image, labels that reach every layer, a start at the data's mean, dropout where it belongs."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from small import few_digits, held_out, noise_images, run, small_config

from vae.conditioning import OnLabel
from vae.config import ConfigError
from vae.data import Digits
from vae.evaluate import evaluate
from vae.likelihoods import Bernoulli, Gaussian
from vae.measure import measure_of
from vae.model import VAE, num_parameters
from vae.networks import Conv, Mlp, Sizes
from vae.networks.activations import Activation, activation
from vae.priors import LabelConditional
from vae.train import build
from vae.train_config import Initialisation, TrainConfig

SHAPES = [(1, 5, 7), (1, 8, 8), (1, 9, 13), (1, 28, 28), (3, 32, 32), (1, 64, 64), (2, 4, 31)]
LABELS = torch.eye(3)[[0, 2]]


def sizes_of(shape, *, labels=0, everywhere=False, outputs=1):
    """What data of ``shape`` asks of a network with 4 latents."""
    return Sizes(
        shape=shape,
        latent=4,
        posterior_outputs=8,
        outputs_per_dimension=outputs,
        encoder_condition=labels,
        decoder_condition=labels,
        condition_everywhere=everywhere,
    )


def networks(config, shape, **sizes):
    """Encoder and decoder with the same weights each time."""
    torch.manual_seed(0)
    return config.build(sizes_of(shape, **sizes))


def small_conv(**changes):
    """Two convolutions, smooth, so that no unit is dead by chance."""
    return dataclasses.replace(Conv(channels=(2, 3), dense=5, activation="silu"), **changes)


@pytest.mark.parametrize("labelled", ["none", "input", "every_layer"])
@pytest.mark.parametrize(
    "config",
    [
        Mlp(hidden=(6, 5)),
        Mlp(hidden=()),
        Mlp(hidden=(6,), decoder_hidden=(3, 4)),
        small_conv(kernel=3),
        small_conv(kernel=4),
        small_conv(kernel=5),
    ],
    ids=["mlp", "affine", "own-decoder", "conv3", "conv4", "conv5"],
)
def test_shapes(config, labelled):
    """Whatever the image's size, rows go in flat and come out at the size that they had."""
    label, labels = (None, 0) if labelled == "none" else (LABELS, 3)
    for shape in SHAPES:
        dimensions = shape[0] * shape[1] * shape[2]
        for outputs in (1, 2):
            encoder, decoder = networks(
                config, shape, labels=labels, everywhere=labelled == "every_layer", outputs=outputs
            )
            assert encoder(torch.rand(2, dimensions), label).shape == (2, 8)
            assert decoder(torch.rand(2, 4), label).shape == (2, outputs * dimensions)


def test_hidden_layers_are_as_asked():
    """Widths go to the encoder first to last, to the decoder mirrored, or as its own."""
    encoder, decoder = networks(Mlp(hidden=(6, 5)), (1, 2, 5))
    assert [tuple(layer.weight.shape) for layer in encoder.affine] == [(6, 10), (5, 6), (8, 5)]
    assert [tuple(layer.weight.shape) for layer in decoder.affine] == [(5, 4), (6, 5), (10, 6)]
    _, own = networks(Mlp(hidden=(6, 5), decoder_hidden=(3,)), (1, 2, 5))
    assert [tuple(layer.weight.shape) for layer in own.affine] == [(3, 4), (10, 3)]
    _, affine = networks(Mlp(hidden=(6, 5), decoder_hidden=()), (1, 2, 5))
    assert [tuple(layer.weight.shape) for layer in affine.affine] == [(10, 4)]


@pytest.mark.parametrize("kernel", [3, 4, 5])
def test_each_convolution_halves(kernel):
    """Even sizes halve exactly; the dense layer's width says what was left."""
    encoder, _ = networks(small_conv(kernel=kernel), (1, 32, 16))
    assert encoder.dense.in_features == 3 * 8 * 4


@pytest.mark.parametrize("config", [Mlp(hidden=(6, 5), activation="silu"), small_conv()], ids=["mlp", "conv"])
@pytest.mark.parametrize("everywhere", [False, True])
@torch.no_grad()
def test_the_label_changes_what_comes_out(config, everywhere):
    """Encoder and decoder answer another label with another output."""
    encoder, decoder = networks(config, (1, 8, 8), labels=3, everywhere=everywhere)
    for network, size in ((encoder, 64), (decoder, 4)):
        row = torch.rand(1, size)
        outputs = [network(row, torch.eye(3)[y : y + 1]) for y in range(3)]
        assert not torch.allclose(outputs[0], outputs[1])
        assert not torch.allclose(outputs[1], outputs[2])


def label_weights(network, *, labels):
    """Of every layer that takes the label, the part of its weight that does."""
    taken = []
    for module in network.modules():
        if isinstance(module, torch.nn.Linear | torch.nn.Conv2d):
            taken.append(module.weight[:, -labels:])
        elif isinstance(module, torch.nn.ConvTranspose2d):
            taken.append(module.weight[-labels:])
    return taken


@pytest.mark.parametrize(
    ("config", "layers"), [(Mlp(hidden=(6, 5), activation="silu"), 3), (small_conv(), 4)], ids=["mlp", "conv"]
)
@torch.no_grad()
def test_at_every_layer_each_layer_takes_the_label(config, layers):
    """With the label cut off from all layers but one, the output still depends on it: for each of them."""
    for part, size in ((0, 64), (1, 4)):
        for alone in range(layers):
            network = networks(config, (1, 8, 8), labels=3, everywhere=True)[part]
            weights = label_weights(network, labels=3)
            assert len(weights) == layers
            for index, weight in enumerate(weights):
                if index != alone:
                    weight.zero_()
            row = torch.rand(1, size)
            seen = [network(row, torch.eye(3)[y : y + 1]) for y in (0, 1)]
            assert not torch.equal(*seen), alone


def test_at_the_input_only_the_first_layer_takes_the_label():
    """Conditioning at the input widens one layer of each network by the number of labels."""
    for config, first in ((Mlp(hidden=(6, 5)), "affine.0.weight"), (small_conv(), "convolutions.0.weight")):
        plain = networks(config, (1, 8, 8))
        conditional = networks(config, (1, 8, 8), labels=3)
        wider = [
            name
            for name, parameter in plain[0].named_parameters()
            if parameter.shape != dict(conditional[0].named_parameters())[name].shape
        ]
        assert wider == [first]
        decoder_wider = [
            name
            for name, parameter in plain[1].named_parameters()
            if parameter.shape != dict(conditional[1].named_parameters())[name].shape
        ]
        assert decoder_wider == [{"affine.0.weight": "affine.0.weight"}.get(first, "first.weight")]


@pytest.mark.parametrize(
    ("shape", "entries", "most"),
    [((1, 8, 8), 4, 3), ((1, 28, 28), 6, 5), ((1, 2, 64), 2, 1), ((1, 1, 64), 1, 0)],
    ids=str,
)
@pytest.mark.parametrize("kernel", [3, 4, 5])
def test_too_deep_is_refused(shape, entries, most, kernel):
    """A network that would halve an image of one pixel is refused in one line that says how deep it may be."""
    if kernel == 4 and shape == (1, 28, 28):
        entries, most = 5, 4  # 28, 14, 7, 3, 1: an odd size loses its last row to an even kernel
    with pytest.raises(ConfigError) as refusal:
        networks(Conv(channels=(2,) * entries, kernel=kernel), shape)
    line = str(refusal.value)
    assert line.startswith("network.channels must have at most")
    assert f"at most {most} entries for images of {shape[1]}×{shape[2]}, got {entries}" in line
    assert "\n" not in line
    if most:
        networks(Conv(channels=(2,) * most, kernel=kernel, dense=3), shape)


@pytest.mark.parametrize("name", Activation.__args__)
def test_activations_are_told_apart(name):
    """Each name is its own function, and the network uses it."""
    x = torch.linspace(-2, 2, 9)
    others = [activation(other)(x) for other in Activation.__args__ if other != name]
    assert not any(torch.allclose(activation(name)(x), other) for other in others)
    assert isinstance(networks(Mlp(activation=name), (1, 2, 2))[0].activation, type(activation(name)))
    assert isinstance(networks(small_conv(activation=name), (1, 8, 8))[1].activation, type(activation(name)))


START = [
    ({"likelihood": Bernoulli(), "data": Digits(binarisation="expected")}, "bernoulli"),
    ({}, "binomial"),
    ({"likelihood": Gaussian()}, "gaussian"),
]


@pytest.mark.parametrize(("changes", "name"), START, ids=[name for _, name in START])
@pytest.mark.parametrize("network", [Mlp(hidden=(8,)), small_conv()], ids=["mlp", "conv"])
@torch.no_grad()
def test_an_untrained_decoder_predicts_the_data_mean(changes, name, network):
    """With ``output_bias: data_mean`` and no other last weights, E[x|z] is the mean: by pixel, or by channel."""
    data = few_digits()
    config = small_config(network=network, initialisation=Initialisation(output_bias="data_mean"), **changes)
    model = build(config, data)
    last = model.decoder.affine[-1] if isinstance(network, Mlp) else model.decoder.convolutions[-1]
    last.weight.zero_()
    mean = data.train.images.flatten(1).double().mean(0).float() / data.levels
    expected = mean.clamp(1e-3, 1 - 1e-3) if isinstance(network, Mlp) else mean.mean().expand(64)
    if isinstance(network, Mlp) and name == "gaussian":
        expected = mean
    seen = model.likelihood.mean(model.decode(torch.randn(2, config.latent_size), None))
    assert torch.allclose(expected.expand(2, -1), seen, atol=1e-5)


@torch.no_grad()
def test_each_channel_has_its_own_mean():
    """A convolutional decoder's bias for colour is by channel."""
    data = noise_images((3, 8, 8))
    data.train.images[:, 0] //= 4
    config = small_config(network=small_conv(), initialisation=Initialisation(output_bias="data_mean"))
    model = build(config, data)
    model.decoder.convolutions[-1].weight.zero_()
    seen = model.likelihood.mean(model.decode(torch.zeros(1, 3), None)).view(3, 64).mean(1)
    expected = data.train.images.float().mean((0, 2, 3)) / 255
    assert torch.allclose(expected, seen, atol=1e-4)
    assert seen[0] < 0.2


@pytest.mark.parametrize("weights", ["xavier_uniform", "xavier_normal"])
@pytest.mark.parametrize("network", [Mlp(hidden=(200,)), Conv(channels=(16, 32))], ids=["mlp", "conv"])
def test_xavier(weights, network):
    """Glorot's variance 2 / (fan in + fan out), and biases of zero, in every layer."""
    config = small_config(network=network, initialisation=Initialisation(weights=weights))
    model = build(config, few_digits())
    for module in model.modules():
        if isinstance(module, torch.nn.Linear | torch.nn.Conv2d | torch.nn.ConvTranspose2d):
            assert not module.bias.any()
            fan_in, fan_out = torch.nn.init._calculate_fan_in_and_fan_out(module.weight)
            expected = (2 / (fan_in + fan_out)) ** 0.5
            assert module.weight.std().item() == pytest.approx(expected, rel=0.2)
            limit = module.weight.abs().max().item()
            assert (limit <= expected * 3**0.5 + 1e-6) == (weights == "xavier_uniform")


@pytest.mark.parametrize(
    "network", [Mlp(hidden=(32, 32), dropout=0.5), small_conv(dropout=0.5, dense=32)], ids=["mlp", "conv"]
)
def test_dropout_is_for_training_alone(network):
    """Two passes differ in training mode and are equal in evaluation; held-out scores repeat."""
    data = few_digits()
    config = small_config(network=network)
    model = build(config, data)
    x, z = torch.rand(4, 64), torch.rand(4, 3)
    model.train()
    assert not torch.equal(model.encode(x, None).mean, model.encode(x, None).mean)
    assert not torch.equal(model.decode(z, None), model.decode(z, None))
    measure = measure_of(config, data.validation, levels=data.levels)
    first = evaluate(model, held_out(config, data), config.eval, measure)
    assert evaluate(model, held_out(config, data), config.eval, measure) == first
    model.eval()
    assert torch.equal(model.encode(x, None).mean, model.encode(x, None).mean)
    assert torch.equal(model.decode(z, None), model.decode(z, None))
    with_dropout, _ = run(dataclasses.replace(config, epochs=1), data)
    without, _ = run(dataclasses.replace(config, epochs=1, network=dataclasses.replace(network, dropout=0.0)), data)
    assert with_dropout[0]["train/loss"] != without[0]["train/loss"]


def test_the_number_of_parameters():
    """784-400-20, the published VAE, has the 652,824 parameters that its layers add up to."""
    config = TrainConfig(network=Mlp(hidden=(400,)), latent_size=20)
    model = VAE(config, shape=(1, 28, 28), levels=255, num_classes=10)
    layers = [(784, 400), (400, 40), (20, 400), (400, 784)]
    assert num_parameters(model) == sum(wide * narrow + narrow for wide, narrow in layers)


def test_the_model_passes_labels_on():
    """A conditional VAE's posterior and reconstruction both depend on the label that it is given."""
    model = build(small_config(conditioning=OnLabel()), few_digits())
    assert model.labelled
    x, noise = torch.rand(1, 64), torch.zeros(1, 1, 3)
    labels = torch.eye(10)
    first, second = (model.terms(x, labels[y : y + 1], noise) for y in (3, 4))
    assert not torch.equal(first.reconstruction, second.reconstruction)
    assert not torch.equal(first.kl, second.kl)


@torch.no_grad()
def test_samples_come_from_the_prior():
    """``sample`` decodes z of the prior: for N(0, I) the noise itself."""
    model = build(small_config(), few_digits())
    noise = torch.randn(5, 3)
    assert torch.equal(model.likelihood.mean(model.decode(noise, None)), model.sample(noise, torch.zeros(5)))


@torch.no_grad()
def test_samples_of_a_learned_prior_are_their_labels():
    """With p(z|y), z is m_y + s_y·ε of the label that is asked for."""
    model = build(small_config(conditioning=OnLabel(), prior=LabelConditional()), few_digits())
    model.prior.mean_of.copy_(torch.arange(30.0).view(10, 3) / 10)
    model.prior.log_variance_of.fill_(-2.0)
    noise, label = torch.randn(4, 3), torch.eye(10)[[7, 0, 0, 3]]
    z = model.prior.mean_of[[7, 0, 0, 3]] + math.exp(-1.0) * noise
    expected = model.likelihood.mean(model.decode(z, label))
    assert torch.allclose(expected, model.sample(noise, torch.zeros(4), label), atol=1e-6)

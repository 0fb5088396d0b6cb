"""Networks: any size of image, a condition that reaches every layer, a start at the data's mean, normalisation and dropout."""

from __future__ import annotations

import dataclasses
import math
from itertools import pairwise

import pytest
import torch
from torch.nn import functional

from tests.support.small import few_digits, held_out, noise_images, run, small_config
from vae.conditioning import OnLabel
from vae.config import ConfigError
from vae.data import Digits
from vae.evaluate import evaluate
from vae.likelihoods import Bernoulli, Categorical, Gaussian
from vae.measure import measure_of
from vae.model import VAE, num_parameters
from vae.networks import Conv, Mlp, ResNet, Sizes
from vae.networks.activations import Activation, activation
from vae.networks.normalisation import has_batch_norm, image_normalisation
from vae.networks.resnet import Block
from vae.priors import LabelConditional
from vae.train import build
from vae.train_config import Initialisation, TrainConfig

SHAPES = [(1, 5, 7), (1, 8, 8), (1, 9, 7), (1, 9, 13), (1, 28, 28), (3, 32, 32), (3, 64, 64), (2, 4, 31)]
LABELS = torch.eye(3)[[0, 2]]


def sizes_of(shape, *, labels=0, seen=None, everywhere=False, outputs=1):
    """What data of ``shape`` asks of a network with 4 latents; ``seen`` is what the decoder is told, if not labels."""
    return Sizes(
        shape=shape,
        latent=4,
        posterior_outputs=8,
        outputs_per_dimension=outputs,
        encoder_condition=labels,
        decoder_condition=labels if seen is None else seen,
        condition_everywhere=everywhere,
    )


def networks(config, shape, **sizes):
    """Encoder and decoder with the same weights each time."""
    torch.manual_seed(0)
    return config.build(sizes_of(shape, **sizes))


def small_conv(**changes):
    """Two convolutions, smooth, so that no unit is dead by chance."""
    return dataclasses.replace(Conv(channels=(2, 3), dense=5, activation="silu"), **changes)


def small_resnet(**changes):
    """Two levels, smooth."""
    return dataclasses.replace(ResNet(channels=(2, 3), dense=5), **changes)


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
        Mlp(hidden=(6, 5), normalisation="batch"),
        small_conv(normalisation="group"),
        small_resnet(),
        small_resnet(channels=(2, 4, 3), blocks=2, normalisation="batch"),
        small_resnet(channels=(3,), normalisation="none"),
    ],
    ids=[
        "mlp",
        "affine",
        "own-decoder",
        "conv3",
        "conv4",
        "conv5",
        "mlp-batch",
        "conv-group",
        "resnet",
        "deep",
        "flat",
    ],
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


@pytest.mark.parametrize("config", [Mlp(hidden=(6,)), small_conv(), small_resnet()], ids=["mlp", "conv", "resnet"])
@torch.no_grad()
def test_the_decoder_alone_may_be_told_something(config):
    """Seen pixels go to the decoder and change what it puts out; the encoder is as if there were none."""
    encoder, decoder = networks(config, (1, 9, 7), seen=20)
    alone, _ = networks(config, (1, 9, 7))
    assert [w.shape for w in alone.parameters()] == [w.shape for w in encoder.parameters()]
    assert encoder(torch.rand(2, 63), None).shape == (2, 8)
    seen = torch.rand(2, 20)
    outputs = decoder(torch.zeros(2, 4), seen)
    assert outputs.shape == (2, 63)
    assert not torch.allclose(outputs[0], outputs[1])


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


def test_a_resnet_halves_between_levels():
    """The first level keeps the size, each later one halves it, rounding up, with a 1×1 shortcut and stride 2."""
    encoder, decoder = networks(small_resnet(channels=(2, 2, 3), blocks=2), (1, 9, 14))
    assert encoder.dense.in_features == 3 * 3 * 4
    shortcuts = [block.shortcut for block in encoder.blocks]
    assert [shortcut is not None for shortcut in shortcuts] == [False, False, True, False, True, False]
    assert all((shortcuts[i].kernel_size, shortcuts[i].stride) == ((1, 1), (2, 2)) for i in (2, 4))
    assert decoder.sizes == [(3, 4), (3, 4), (5, 7), (5, 7), (9, 14), (9, 14)]
    assert [block.first.stride for block in decoder.blocks] == [(1, 1)] * 6


CONDITIONED = [
    (Mlp(hidden=(6, 5), activation="silu"), 3, 3),
    (small_conv(), 4, 4),
    (small_resnet(), 5, 4),  # stem, a block for each level, dense, output; without the stem for the decoder
    (small_resnet(blocks=2, normalisation="none"), 7, 6),
]
IDS = ["mlp", "conv", "resnet", "resnet-blocks"]


@pytest.mark.parametrize("config", [config for config, _, _ in CONDITIONED], ids=IDS)
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


def label_weights(network, plain, *, labels):
    """Of every layer that takes the label, being wider than its like in ``plain``, the part of the weight that does."""
    unconditional = dict(plain.named_modules())
    taken = []
    for name, module in network.named_modules():
        if not isinstance(module, torch.nn.Linear | torch.nn.Conv2d | torch.nn.ConvTranspose2d):
            continue
        if module.weight.shape == unconditional[name].weight.shape:
            continue
        transposed = isinstance(module, torch.nn.ConvTranspose2d)
        taken.append(module.weight[-labels:] if transposed else module.weight[:, -labels:])
    return taken


@pytest.mark.parametrize(("config", "encoder_layers", "decoder_layers"), CONDITIONED, ids=IDS)
@torch.no_grad()
def test_at_every_layer_each_layer_takes_the_label(config, encoder_layers, decoder_layers):
    """With the label cut off from all layers but one, the output still depends on it: for each of them."""
    for part, size, layers in ((0, 64, encoder_layers), (1, 4, decoder_layers)):
        for alone in range(layers):
            network = networks(config, (1, 8, 8), labels=3, everywhere=True)[part]
            weights = label_weights(network, networks(config, (1, 8, 8))[part], labels=3)
            assert len(weights) == layers
            for index, weight in enumerate(weights):
                if index != alone:
                    weight.zero_()
            row = torch.rand(1, size)
            seen = [network(row, torch.eye(3)[y : y + 1]) for y in (0, 1)]
            assert not torch.equal(*seen), alone
            weights[alone].zero_()
            assert torch.equal(*(network(row, torch.eye(3)[y : y + 1]) for y in (0, 1)))


@pytest.mark.parametrize(
    ("config", "first", "decoder_first"),
    [
        (Mlp(hidden=(6, 5)), "affine.0.weight", "affine.0.weight"),
        (small_conv(), "convolutions.0.weight", "first.weight"),
        (small_resnet(), "stem.weight", "first.weight"),
    ],
    ids=["mlp", "conv", "resnet"],
)
def test_at_the_input_only_the_first_layer_takes_the_label(config, first, decoder_first):
    """Conditioning at the input widens one layer of each network by the number of labels."""
    plain, conditional = networks(config, (1, 8, 8)), networks(config, (1, 8, 8), labels=3)
    for part, expected in ((0, first), (1, decoder_first)):
        shapes = {name: parameter.shape for name, parameter in conditional[part].named_parameters()}
        assert [expected] == [name for name, p in plain[part].named_parameters() if p.shape != shapes[name]]
        assert plain[part].get_parameter(expected).shape[1] + 3 == shapes[expected][1]


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


@pytest.mark.parametrize(
    ("shape", "most"), [((1, 8, 8), 4), ((1, 9, 7), 4), ((3, 28, 28), 6), ((1, 2, 64), 2), ((1, 1, 64), 1)], ids=str
)
def test_a_resnet_that_is_too_deep_is_refused(shape, most):
    """A level more than the image has halvings is refused in one line that says how many there may be."""
    network = small_resnet(channels=(2,) * (most + 1))
    with pytest.raises(ConfigError) as refusal:
        networks(network, shape)
    expected = f"network.channels must have at most {most} entries for images of {shape[1]}×{shape[2]}, got {most + 1}"
    assert f"{expected}; use fewer" == str(refusal.value)
    encoder, decoder = networks(small_resnet(channels=(2,) * most), shape)
    assert decoder(encoder(torch.rand(2, math.prod(shape)), None)[:, :4], None).shape == (2, math.prod(shape))


@torch.no_grad()
def block_of(channels_in, channels_out, **changes):
    """A block with nothing at its start: weights of the norms included."""
    torch.manual_seed(0)
    stride = changes.pop("stride", 1)
    block = Block(small_resnet(**changes), channels_in, channels_out, 0, stride=stride)
    for parameter in block.parameters():
        parameter.normal_()
    return block


@pytest.mark.parametrize("normalisation", ["none", "batch", "group"])
@torch.no_grad()
def test_a_block_that_adds_nothing_is_the_identity(normalisation):
    """With its last convolution at zero a block hands x on as it is; where the shape changes, its 1×1 projection."""
    x = torch.randn(2, 4, 5, 7)
    same = block_of(4, 4, normalisation=normalisation)
    halving = block_of(4, 6, normalisation=normalisation, stride=2)
    assert not torch.allclose(x, same(x, None))
    for block in (same, halving):
        block.second.weight.zero_()
        block.second.bias.zero_()
    assert torch.equal(x, same(x, None))
    pixels = x[:, :, ::2, ::2]
    projection = torch.einsum("oi,bihw->bohw", halving.shortcut.weight[:, :, 0, 0], pixels)
    expected = projection + halving.shortcut.bias[:, None, None]
    assert torch.allclose(expected, halving(x, None), atol=1e-5)


@torch.no_grad()
def test_a_block_normalises_and_activates_before_it_convolves():
    """x + conv(act(norm(conv(act(norm(x)))))): the order of He et al. 2016b, figure 4(e)."""
    block = block_of(4, 4, normalisation="group", activation="tanh")
    x = torch.randn(2, 4, 5, 7)
    h = x
    for norm, convolution in ((block.first_norm, block.first), (block.second_norm, block.second)):
        h = functional.group_norm(h, 1, norm.weight, norm.bias).tanh()
        h = functional.conv2d(h, convolution.weight, convolution.bias, padding=1)
    assert torch.allclose(x + h, block(x, None), atol=1e-4)


@torch.no_grad()
def test_a_resnet_ends_its_blocks_with_norm_and_activation():
    """Pre-activation leaves the last sum bare: both networks normalise and activate it before they go on."""
    encoder, decoder = networks(small_resnet(activation="tanh"), (1, 5, 8))
    x = torch.rand(2, 40)
    h = encoder.stem(x.view(2, 1, 5, 8))
    for block in encoder.blocks:
        h = block(h, None)
    h = functional.group_norm(h, 1).tanh().flatten(1)
    assert torch.allclose(encoder.output(encoder.dense(h).tanh()), encoder(x, None), atol=1e-5)
    z = torch.randn(2, 4)
    h = decoder.blocks[0](decoder.dense(decoder.first(z).tanh()).tanh().view(2, 3, 3, 4), None)
    h = decoder.blocks[1](h.repeat_interleave(2, 2)[:, :, :5].repeat_interleave(2, 3), None)
    assert torch.allclose(decoder.output(functional.group_norm(h, 1).tanh()).flatten(1), decoder(z, None), atol=1e-5)


@pytest.mark.parametrize(
    "config",
    [Mlp(hidden=(6, 5)), Conv(channels=(3, 4), dense=5), small_resnet()],
    ids=["mlp", "conv", "resnet"],
)
@torch.no_grad()
def test_only_batch_normalisation_mixes_examples(config):
    """In training, batch normalisation's output depends on the rest of the batch; in evaluation and else, never."""
    alternative = "layer" if isinstance(config, Mlp) else "group"
    for normalisation in ("none", alternative, "batch"):
        pair = networks(dataclasses.replace(config, normalisation=normalisation), (1, 8, 8))
        for network, size in zip(pair, (64, 4), strict=True):
            assert has_batch_norm(network) == (normalisation == "batch")
            rows, mates = torch.rand(3, size), 5 * torch.rand(3, size)
            for training in (True, False):
                network.train(training)
                alone, mixed = network(rows, None), network(torch.cat([rows, mates]), None)[:3]
                mixes = normalisation == "batch" and training
                assert torch.allclose(alone, mixed, atol=1e-5) != mixes, (normalisation, training)


@pytest.mark.parametrize("config", [Mlp(hidden=(6, 5)), small_conv(), small_resnet()], ids=["mlp", "conv", "resnet"])
@torch.no_grad()
def test_normalisation_changes_what_comes_out(config):
    """Each choice of normalisation is another function, of the same first weights."""
    x = torch.rand(3, 64)
    choices = ("none", "batch", "layer" if isinstance(config, Mlp) else "group")
    for part, row in ((0, x), (1, x[:, :4])):
        made = [
            networks(dataclasses.replace(config, normalisation=name), (1, 8, 8))[part](row, None) for name in choices
        ]
        assert not any(torch.allclose(made[i], made[j], atol=1e-3) for i, j in ((0, 1), (0, 2), (1, 2)))


@pytest.mark.parametrize("name", ["batch", "layer"])
@torch.no_grad()
def test_an_mlp_normalises_between_affine_and_activation(name):
    """Each hidden layer is act(norm(affine)), the output affine alone."""
    encoder, _ = networks(Mlp(hidden=(6, 5), activation="tanh", normalisation=name), (1, 2, 5))
    x = h = torch.rand(7, 10)
    for affine in encoder.affine[:-1]:
        h = affine(h)
        axis = 0 if name == "batch" else 1
        h = ((h - h.mean(axis, keepdim=True)) / (h.var(axis, keepdim=True, correction=0) + 1e-5).sqrt()).tanh()
    assert torch.allclose(encoder.affine[-1](h), encoder(x, None), atol=1e-5)


@torch.no_grad()
def test_a_convolution_is_normalised_before_its_activation():
    """The encoder's convolutions are act(norm(conv)); group normalisation of 4 channels or fewer is over all of them."""
    encoder, _ = networks(Conv(channels=(3, 4), dense=5, activation="tanh", normalisation="group"), (1, 8, 8))
    x = torch.rand(2, 64)
    h = x.view(2, 1, 8, 8)
    for convolution in encoder.convolutions:
        h = functional.layer_norm(convolution(h), convolution(h).shape[1:]).tanh()
    expected = encoder.output(encoder.dense(h.flatten(1)).tanh())
    assert torch.allclose(expected, encoder(x, None), atol=1e-5)


@pytest.mark.parametrize("config", [Mlp(), Conv()], ids=["mlp", "conv"])
def test_without_normalisation_there_is_nothing_of_it(config):
    """The default has the weights that it always had: affine and convolutional ones, by their old names."""
    for network in networks(config, (1, 8, 8)):
        assert not any("norm" in name for name in network.state_dict())
        assert not list(network.buffers())


@pytest.mark.parametrize(
    ("channels", "groups"),
    [(1, 1), (3, 1), (4, 1), (7, 1), (8, 2), (12, 3), (16, 4), (20, 5), (32, 8), (64, 8), (96, 8)],
)
def test_groups_of_channels(channels, groups):
    """At most 8 groups that divide the channels, of at least 4 channels each where there are so many."""
    assert groups == image_normalisation("group", channels).num_groups


@torch.no_grad()
def test_group_normalisation_of_one_pixel_keeps_the_image():
    """Where the levels end at 1×1, another image still gets another posterior."""
    for channels in (4, 8, 16):
        encoder, _ = networks(ResNet(channels=(channels,) * 4, dense=8), (1, 8, 8))
        first, second = encoder(torch.rand(2, 64), None)
        assert not torch.allclose(first, second, atol=1e-3)
        assert encoder(torch.rand(1, 64), None).shape == (1, 8)


@pytest.mark.parametrize("hidden", [{"hidden": (6, 1)}, {"hidden": (6,), "decoder_hidden": (1,)}], ids=str)
def test_a_layer_of_one_unit_is_not_layer_normalised(hidden):
    """A single unit less its own mean is 0 whatever x is: refused in one line, with what to do."""
    with pytest.raises(
        ValueError, match=r"must be at least 2 with normalisation 'layer', got 1: .*use 'batch' or 'none'"
    ):
        Mlp(normalisation="layer", **hidden)
    Mlp(normalisation="batch", **hidden)


@pytest.mark.parametrize("name", Activation.__args__)
def test_activations_are_told_apart(name):
    """Each name is its own function, and the network uses it."""
    x = torch.linspace(-2, 2, 9)
    others = [activation(other)(x) for other in Activation.__args__ if other != name]
    assert not any(torch.allclose(activation(name)(x), other) for other in others)
    assert isinstance(networks(Mlp(activation=name), (1, 2, 2))[0].activation, type(activation(name)))
    assert isinstance(networks(small_conv(activation=name), (1, 8, 8))[1].activation, type(activation(name)))
    resnet = networks(small_resnet(activation=name), (1, 8, 8))[1]
    assert all(type(activation(name)) is type(layer.activation) for layer in (resnet, *resnet.blocks))


def last_layer(decoder):
    """The layer that puts out what the likelihood reads."""
    return [
        m for m in decoder.modules() if isinstance(m, torch.nn.Linear | torch.nn.Conv2d | torch.nn.ConvTranspose2d)
    ][-1]


START = [
    ({"likelihood": Bernoulli(), "data": Digits(binarisation="expected")}, "bernoulli"),
    ({}, "binomial"),
    ({"likelihood": Gaussian()}, "gaussian"),
]


@pytest.mark.parametrize(("changes", "name"), START, ids=[name for _, name in START])
@pytest.mark.parametrize("network", [Mlp(hidden=(8,)), small_conv(), small_resnet()], ids=["mlp", "conv", "resnet"])
@torch.no_grad()
def test_an_untrained_decoder_predicts_the_data_mean(changes, name, network):
    """With ``output_bias: data_mean`` and no other last weights, E[x|z] is the mean: by pixel, or by channel."""
    data = few_digits()
    config = small_config(network=network, initialisation=Initialisation(output_bias="data_mean"), **changes)
    model = build(config, data)
    last_layer(model.decoder).weight.zero_()
    mean = data.train.images.flatten(1).double().mean(0).float() / data.levels
    expected = mean.clamp(1e-3, 1 - 1e-3) if isinstance(network, Mlp) else mean.mean().expand(64)
    if isinstance(network, Mlp) and name == "gaussian":
        expected = mean
    seen = model.likelihood.mean(model.decode(torch.randn(2, config.latent_size), None))
    assert torch.allclose(expected.expand(2, -1), seen, atol=1e-5)


@pytest.mark.parametrize("binarisation", ["none", "static"])
def test_starting_weights_read_no_data_unless_they_depend_on_it(monkeypatch, binarisation):
    """Of a large set that is a pass over all of it, for each trial."""
    monkeypatch.setattr("vae.run.pixels_of", lambda *_, **__: pytest.fail("the images were read"))
    likelihood = Bernoulli() if binarisation == "static" else small_config().likelihood
    config = small_config(data=Digits(binarisation=binarisation), likelihood=likelihood)
    build(config, few_digits())
    with pytest.raises(pytest.fail.Exception, match="images were read"):
        build(dataclasses.replace(config, initialisation=Initialisation(output_bias="data_mean")), few_digits())


@pytest.mark.parametrize("network", [small_conv(), small_resnet()], ids=["conv", "resnet"])
@torch.no_grad()
def test_each_channel_has_its_own_mean(network):
    """A convolutional decoder's bias for colour is by channel."""
    data = noise_images((3, 8, 8))
    data.train.images[:, 0] //= 4
    config = small_config(network=network, initialisation=Initialisation(output_bias="data_mean"))
    model = build(config, data)
    last_layer(model.decoder).weight.zero_()
    seen = model.likelihood.mean(model.decode(torch.zeros(1, 3), None)).view(3, 64).mean(1)
    expected = data.train.images.float().mean((0, 2, 3)) / 255
    assert torch.allclose(expected, seen, atol=1e-4)
    assert seen[0] < 0.2


@pytest.mark.parametrize("likelihood", [Gaussian(learned="per_pixel"), Categorical()], ids=["gaussian", "categorical"])
@pytest.mark.parametrize("network", [Mlp(hidden=(8,)), small_conv(), small_resnet()], ids=["mlp", "conv", "resnet"])
@torch.no_grad()
def test_each_channel_has_its_own_mean_of_several_outputs(network, likelihood):
    """Where the likelihood reads several outputs for a dimension, the bias of each goes to its own channel."""
    module = likelihood.build(levels=3)
    _, decoder = networks(network, (3, 9, 7), outputs=module.outputs_per_dimension)
    last_layer(decoder).weight.zero_()
    means = torch.tensor([0.2, 0.5, 0.9])
    decoder.set_output_bias(means.repeat_interleave(63), module.output_bias)
    seen = module.mean(decoder(torch.randn(2, 4), None))
    assert torch.allclose(means.repeat_interleave(63).expand(2, -1), seen, atol=1e-5)


@pytest.mark.parametrize("weights", ["xavier_uniform", "xavier_normal"])
@pytest.mark.parametrize(
    "network",
    [Mlp(hidden=(200,)), Conv(channels=(16, 32)), ResNet(channels=(16, 32))],
    ids=["mlp", "conv", "resnet"],
)
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
    "network",
    [Mlp(hidden=(32, 32), dropout=0.5), small_conv(dropout=0.5, dense=32), small_resnet(dropout=0.5)],
    ids=["mlp", "conv", "resnet"],
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


@pytest.mark.parametrize("hidden", [(), (256,), (128, 64)], ids=str)
@pytest.mark.parametrize("normalisation", ["none", "batch", "layer"])
def test_the_number_of_parameters_of_an_mlp(hidden, normalisation):
    """Each affine layer has in × out + out numbers, each normalisation a scale and a shift for each hidden unit."""
    encoder, decoder = networks(Mlp(hidden=hidden, normalisation=normalisation), (1, 28, 28), labels=10, outputs=2)
    norms = 0 if normalisation == "none" else 2 * sum(hidden)
    for network, widths in ((encoder, (784, *hidden, 8)), (decoder, (4, *hidden[::-1], 1568))):
        affine = sum(wide * narrow + narrow for wide, narrow in pairwise(widths))
        assert affine + 10 * widths[1] + norms == num_parameters(network)


def test_the_number_of_parameters_of_a_resnet():
    """A block from a to b channels has 9ab + 9b² + 2b for its convolutions, 2a + 2b for its norms, ab + b to project."""

    def block(a, b, *, projects):
        return 9 * a * b + 9 * b * b + 2 * b + 2 * a + 2 * b + (a * b + b if projects else 0)

    encoder, decoder = networks(ResNet(channels=(4, 8), blocks=2, dense=16), (3, 9, 7), outputs=2)
    pixels = 5 * 4
    stem, blocks = 9 * 3 * 4 + 4, 2 * block(4, 4, projects=False) + block(8, 8, projects=False)
    dense = 8 * pixels * 16 + 16 + 16 * 8 + 8
    assert stem + blocks + block(4, 8, projects=True) + 2 * 8 + dense == num_parameters(encoder)
    dense = 4 * 16 + 16 + 16 * 8 * pixels + 8 * pixels
    blocks = 2 * block(8, 8, projects=False) + block(8, 4, projects=True) + block(4, 4, projects=False)
    assert dense + blocks + 2 * 4 + 9 * 4 * 6 + 6 == num_parameters(decoder)


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

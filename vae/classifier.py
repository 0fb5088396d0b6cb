"""An independent classifier of the data's labels, which checks whether conditional samples show the requested label.

It is a small convolutional network that is trained on the training images, never on a model's output. It is cached for
the process, so that the same classifier judges every trial of a sweep.
"""

from __future__ import annotations

import dataclasses
from math import prod
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from vae import seeds
from vae.data.pixels import Pixels
from vae.evaluate import blocks
from vae.external import External
from vae.optimizers import Adam, build_optimizer

if TYPE_CHECKING:
    from vae.data import DataConfig, TrainingData
    from vae.model import VAE

EPOCHS = 6  # the smallest number; three at a constant rate gave 98.3 % on MNIST's validation images
STEPS = 600  # the smallest number, so that small sets get more epochs
BATCH = 128
AT_ONCE = 1000  # examples that are classified at once
SMALLEST_IMAGE = 8  # the side below which an image is too small for two convolutions

_KEPT: dict[tuple[str, int], nn.Module] = {}  # the cache, by digest of the training examples and seed


def classifier_of(data: TrainingData, config: DataConfig, seed: int, device: torch.device) -> nn.Module:
    """Return the classifier of ``data``'s labels in evaluation mode: x [B, D] -> logits [B, K].

    It depends on the training examples and ``seed`` only. Torch's global generator is restored.
    """
    key = (data.train.digest, seed)
    if key not in _KEPT:
        with torch.random.fork_rng():
            _KEPT[key] = _train(data, config, seed)
    return _KEPT[key].to(device)


def _train(data: TrainingData, config: DataConfig, seed: int) -> nn.Module:
    torch.manual_seed(seeds.derive(seed, "classifier"))
    model = _network(data.shape, data.num_classes)
    pixels = grey(data, config, "train", seed)
    optimizer = build_optimizer(Adam(lr=1e-3), model.parameters())
    epochs = max(EPOCHS, STEPS * BATCH // len(pixels))
    rate = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 1 / epochs, epochs - 1)
    for epoch in range(epochs):
        order = torch.randperm(len(pixels), generator=seeds.generator(seed, "classifier order", epoch))
        for index in order.split(BATCH):
            loss = functional.cross_entropy(model(pixels.batch(index)), pixels.labels[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        rate.step()
    return model.eval().requires_grad_(requires_grad=False)


def _network(shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    channels, height, width = shape
    if min(height, width) < SMALLEST_IMAGE:
        return nn.Sequential(nn.Linear(prod(shape), 256), nn.ReLU(), nn.Linear(256, num_classes))
    return nn.Sequential(
        nn.Unflatten(1, shape),
        nn.Conv2d(channels, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * (height // 4) * (width // 4), 128),
        nn.ReLU(),
        nn.Linear(128, num_classes),
    )


def grey(data: TrainingData, config: DataConfig, split: str, seed: int) -> Pixels:
    """Return a split's pixels without binarisation, because a decoder's means are grey too."""
    plain = (
        config if isinstance(config, External) else dataclasses.replace(config, binarisation="none", dequantise=False)
    )
    examples = data.train if split == "train" else data.validation
    assert examples is not None, "asked only where there is a validation split"
    return Pixels(
        examples, plain, levels=data.levels, eval_seed=seed, device=torch.device("cpu"), held_out=split != "train"
    )


@torch.no_grad()
def accuracy(classifier: nn.Module, pixels: Pixels) -> float:
    """Return the share of examples whose label is the most likely one for ``classifier``."""
    right = 0
    for rows in blocks(len(pixels), AT_ONCE):
        right += int((classifier(pixels.batch(rows)).argmax(1) == pixels.labels[rows]).sum())
    return right / len(pixels)


@torch.no_grad()
def samples_as_asked(model: VAE, classifier: nn.Module, *, count: int, seed: int) -> float:
    """Return the share of ``count`` samples that are classified as their label y.

    A sample is E[x|z, y] with z from the prior. Labels are balanced.
    """
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    labels = (torch.arange(count) % model.num_classes).to(device)
    generator = seeds.generator(seed, "samples as asked")
    right = 0
    for block in labels.split(AT_ONCE):
        noise = torch.randn((len(block), model.latent_size), generator=generator).to(device)
        uniform = torch.rand(len(block), generator=generator).to(device)
        condition = model.condition(noise.new_zeros(len(block), prod(model.shape)), block)
        predicted: Tensor = classifier(model.sample(noise, uniform, condition)).argmax(1)
        right += int((predicted == block).sum())
    model.train(was_training)
    return right / count

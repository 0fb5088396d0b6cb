"""Small data and small configs, so that a whole training run costs a few hundredths of a second."""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import TYPE_CHECKING, Any

import torch

from vae.data import Digits, TrainingData, load_training
from vae.data.dataset import content_digest, make_split
from vae.data.pixels import Pixels, pixels_of
from vae.fast.stacked import train_stacked
from vae.networks import Mlp
from vae.train import train
from vae.train_config import TrainConfig

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from vae.data import Split
    from vae.model import VAE
    from vae.state import TrainState


@cache
def digits() -> TrainingData:
    """The real handwritten digits, all of them."""
    return load_training(Digits(), None)


@cache
def few_digits(train: int = 96, validation: int = 40) -> TrainingData:
    """The first of the real digits: with batches of 32, three steps an epoch."""
    data = digits()
    assert data.validation is not None
    return dataclasses.replace(data, train=_first(data.train, train), validation=_first(data.validation, validation))


def noise_images(
    shape: tuple[int, int, int], *, levels: int = 255, classes: int = 10, train: int = 12, validation: int = 6
) -> TrainingData:
    """Random images of ``shape`` C, H, W with values 0..``levels``."""
    generator = torch.Generator().manual_seed(7)
    total = train + validation
    images = torch.randint(0, levels + 1, (total, *shape), generator=generator, dtype=torch.uint8)
    labels = torch.arange(total) % classes
    return TrainingData(
        train=make_split("train", images[:train], labels[:train]),
        validation=make_split("validation", images[train:], labels[train:]),
        levels=levels,
        num_classes=classes,
        data_hash=content_digest(images, labels),
        split_hash=content_digest(torch.arange(train), torch.arange(train, total)),
    )


def small_config(**changes: Any) -> TrainConfig:
    """An MLP of a few units for the digits, two epochs; with ``changes``."""
    config = TrainConfig(network=Mlp(hidden=(8,)), latent_size=3, batch_size=32, epochs=2)
    return dataclasses.replace(config, **changes)


def held_out(config: TrainConfig, data: TrainingData) -> Pixels:
    """The validation split of ``data`` as ``config`` scores it."""
    assert data.validation is not None
    return pixels_of(data.validation, config, data.levels, torch.device("cpu"), held_out=True)


def without_times(row: dict[str, Any]) -> dict[str, Any]:
    """What of a row does not depend on the clock."""
    return {name: value for name, value in row.items() if not name.startswith("time/")}


def run(
    config: TrainConfig, data: TrainingData, resume: TrainState | None = None, device: str = "cpu"
) -> tuple[list[dict[str, Any]], dict[str, torch.Tensor]]:
    """Rows without their times, and the tensors at the end (weights, moments, averages)."""
    rows, tensors = [], {}
    for result in train(config, data, resume, device):
        rows.append(without_times(result.row))
        tensors = {name: tensor.clone() for name, tensor in result.state.tensors.items()}
    return rows, tensors


def stacked(
    configs: Sequence[TrainConfig],
    data: TrainingData,
    resume: Sequence[TrainState | None] | None = None,
    stop: Collection[tuple[int, int]] = (),
    device: str = "cpu",
) -> tuple[list[list[dict[str, Any]]], list[dict[str, torch.Tensor]]]:
    """As :func:`run`, of each member of a stack; ``stop``: (position, epochs), from outside."""
    rows: list[list[dict[str, Any]]] = [[] for _ in configs]
    tensors: list[dict[str, torch.Tensor]] = [{} for _ in configs]
    runs = train_stacked(configs, data, resume, device)
    answer: set[int] | None = None
    while True:
        try:
            results = runs.send(answer)
        except StopIteration:
            return rows, tensors
        for position, result in results.items():
            rows[position].append(without_times(result.row))
            tensors[position] = {name: tensor.clone() for name, tensor in result.state.tensors.items()}
        answer = {position for position, epochs in stop if len(rows[position]) == epochs}


def raw_weights(model: VAE) -> dict[str, torch.Tensor]:
    """A copy of the model's parameters by name."""
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def _first(split: Split, count: int) -> Split:
    return make_split(split.name, split.images[:count], split.labels[:count])

"""Data sets: which examples train, select and test, as integer pixels or real values.

A set is a config with the fields of :class:`DataFields` and ``binarisation``, and ``load(directory, train=...)``,
which reads one part of it as a :class:`Content`. ``vae.data.pixels`` turns it into what a model sees.
"""

from __future__ import annotations

import dataclasses
import os
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import torch
from pydantic import Field

from vae.data import splits
from vae.data.arrays import Arrays
from vae.data.celeba import CelebA
from vae.data.dataset import (
    Binarisation,
    Content,
    DataError,
    DataFields,
    Split,
    TrainingData,
    content_digest,
    make_split,
    mapped_split,
)
from vae.data.digits import Digits
from vae.data.image_folder import ImageFolder
from vae.data.omniglot import Omniglot
from vae.data.torchvision_sets import Cifar10, Emnist, FashionMnist, Kmnist, Mnist, Svhn, TorchvisionSet
from vae.external import External

if TYPE_CHECKING:
    from torch import Tensor

DataConfig = Annotated[
    Digits
    | Mnist
    | FashionMnist
    | Kmnist
    | Emnist
    | Cifar10
    | Svhn
    | Omniglot
    | CelebA
    | ImageFolder
    | Arrays
    | External,
    Field(discriminator="kind"),
]


def data_directory(data_dir: Path | None) -> Path:
    """The absolute path of ``data_dir``, or of $RESEARCH_DATA_DIR, or of ./data, in that order.

    A driver resolves it once for its workers, whose working directory is another.
    """
    return Path(data_dir or os.environ.get("RESEARCH_DATA_DIR") or "data").expanduser().resolve()


def load_training(config: DataConfig, data_dir: Path | None) -> TrainingData:
    """The training part of ``config``'s set, divided by its split seed. Kept in memory for the next caller.

    Raises:
        DataError: one line; the set is missing or corrupt, or ``validation`` leaves nothing to train on.

    """
    return _load_training(_content(config), data_directory(data_dir))


def load_test(config: DataConfig, data_dir: Path | None) -> Split:
    """The test part of ``config``'s set: the same for every split seed.

    Raises:
        DataError: one line; the set is missing or corrupt.

    """
    content = _content(config)
    if not isinstance(content, External):
        content = dataclasses.replace(content, validation=None, split_seed=0)
    return _load_test(content, data_directory(data_dir))


def _content(config: DataConfig) -> DataConfig:
    """``config`` without what only changes how its pixels are seen: what a loaded set is remembered by."""
    if isinstance(config, External):
        return config
    return dataclasses.replace(config, binarisation="none", dequantise=False)


# Trials that follow each other in one process share one copy. Two, so that a comparison of two sets fits.
@lru_cache(maxsize=2)
def _load_training(config: DataConfig, directory: Path) -> TrainingData:
    content = config.load(directory, train=True)
    total = len(content.labels)
    if config.validation is None and content.official is not None:
        out = content.official
        mask = torch.ones(total, dtype=torch.bool)
        mask[out] = False
        kept = mask.nonzero().flatten()
    else:
        count = content.validation if config.validation is None else config.validation
        strata = content.labels if content.stratified else None
        kept, out = splits.held_out(total, count, config.split_seed, "validation", labels=strata)
    return TrainingData(
        train=_split("train", content, kept),
        validation=_split("validation", content, out) if len(out) else None,
        levels=content.levels,
        num_classes=content.num_classes,
        data_hash=content_digest(content.images, content.labels),
        split_hash=content_digest(kept, out),
    )


@lru_cache(maxsize=2)
def _load_test(config: DataConfig, directory: Path) -> Split:
    content = config.load(directory, train=False)
    return _split("test", content, torch.arange(len(content.labels)))


def _split(name: str, content: Content, index: Tensor) -> Split:
    if content.mapped:
        return mapped_split(name, content, index)
    if len(index) == len(content.labels):
        return make_split(name, content.images, content.labels)
    return make_split(name, content.images[index], content.labels[index])


__all__ = [
    "Arrays",
    "Binarisation",
    "CelebA",
    "Cifar10",
    "Content",
    "DataConfig",
    "DataError",
    "DataFields",
    "Digits",
    "Emnist",
    "FashionMnist",
    "ImageFolder",
    "Kmnist",
    "Mnist",
    "Omniglot",
    "Split",
    "Svhn",
    "TorchvisionSet",
    "TrainingData",
    "data_directory",
    "load_test",
    "load_training",
]

"""Data sets: which examples train, select and test, as integer pixels in memory.

A set is a config (a part with a ``kind``), a function that reads it, and one line in ``DataConfig`` and in
each ``match`` below. ``vae.data.pixels`` turns the integers into what a model sees.
"""

from __future__ import annotations

import dataclasses
import os
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from vae.data import digits, splits, torchvision_sets
from vae.data.dataset import (
    Binarisation,
    DataError,
    DataFields,
    Split,
    TrainingData,
    content_digest,
    make_split,
)
from vae.data.digits import Digits
from vae.data.torchvision_sets import Cifar10, Emnist, FashionMnist, Kmnist, Mnist, Svhn, TorchvisionSet

if TYPE_CHECKING:
    from torch import Tensor

DataConfig = Annotated[
    Digits | Mnist | FashionMnist | Kmnist | Emnist | Cifar10 | Svhn,
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
    content = dataclasses.replace(_content(config), validation=None, split_seed=0)
    return _load_test(content, data_directory(data_dir))


def _content(config: DataConfig) -> DataConfig:
    """``config`` without what only changes how its pixels are seen: what a loaded set is remembered by."""
    return dataclasses.replace(config, binarisation="none", dequantise=False)


# Trials that follow each other in one process share one copy. Two, so that a comparison of two sets fits.
@lru_cache(maxsize=2)
def _load_training(config: DataConfig, directory: Path) -> TrainingData:
    images, labels = _read(config, directory, train=True)
    strata: Tensor | None = None
    match config:
        case Digits():
            levels, classes, default = digits.LEVELS, digits.NUM_CLASSES, digits.DEFAULT_VALIDATION
            strata = labels
        case _:
            levels, classes = torchvision_sets.LEVELS, torchvision_sets.num_classes(config)
            default = torchvision_sets.default_validation(config, len(images))
    count = default if config.validation is None else config.validation
    kept, out = splits.held_out(len(images), count, config.split_seed, "validation", labels=strata)
    return TrainingData(
        train=make_split("train", images[kept], labels[kept]),
        validation=make_split("validation", images[out], labels[out]) if count else None,
        levels=levels,
        num_classes=classes,
        data_hash=content_digest(images, labels),
        split_hash=content_digest(kept, out),
    )


@lru_cache(maxsize=2)
def _load_test(config: DataConfig, directory: Path) -> Split:
    return make_split("test", *_read(config, directory, train=False))


def _read(config: DataConfig, directory: Path, *, train: bool) -> tuple[Tensor, Tensor]:
    match config:
        case Digits():
            return digits.read(train=train)
        case _:
            return torchvision_sets.read(config, directory, train=train)


__all__ = [
    "Binarisation",
    "Cifar10",
    "DataConfig",
    "DataError",
    "DataFields",
    "Digits",
    "Emnist",
    "FashionMnist",
    "Kmnist",
    "Mnist",
    "Split",
    "Svhn",
    "TorchvisionSet",
    "TrainingData",
    "data_directory",
    "load_test",
    "load_training",
]

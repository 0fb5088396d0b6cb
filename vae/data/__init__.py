"""Data sets: which examples train, select and test, as integer pixels or real values.

A set is one file and one line in :data:`DataConfig`, or, as ``kind: external``, a class anywhere else. It has

* ``kind``: its name in records;
* ``validation``, ``split_seed``, ``dequantise`` (:class:`DataFields` has them) and ``binarisation``;
* ``load(directory, *, train) -> Content``: the training or the test part, always the same, read from below the data
  directory or made; a :class:`DataError` of one line where it can't be.

:class:`Content` says what else is known of it: its levels, how many labels it has, how many examples to hold out, and
whether it is memory-mapped. ``vae.data.pixels`` turns it into what a model sees.
"""

from __future__ import annotations

import contextlib
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
    rows_digest,
)
from vae.data.digits import Digits
from vae.data.image_folder import ImageFolder
from vae.data.omniglot import Omniglot
from vae.data.support import check_finite, check_whole
from vae.data.torchvision_sets import Cifar10, Emnist, FashionMnist, Kmnist, Mnist, Svhn, TorchvisionSet
from vae.external import External
from vae.system.places import working_directories

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

_IMAGE_DIMENSIONS = 4


def data_directory(data_dir: Path | None) -> Path:
    """The absolute path of ``data_dir``, or of $RESEARCH_DATA_DIR, or of ./data, in that order.

    A driver resolves it once for its workers, whose working directory is another.
    """
    named = Path(data_dir or os.environ.get("RESEARCH_DATA_DIR") or "data").expanduser()
    candidates = [folder / named for folder in working_directories()]
    return next((path for path in candidates if path.is_dir()), candidates[-1]).resolve()


def load_training(config: DataConfig, data_dir: Path | None) -> TrainingData:
    """The training part of ``config``'s set, divided by its split seed. Kept in memory for the next caller.

    Raises:
        DataError: one line; the set is missing or corrupt, or ``validation`` leaves nothing to train on.

    """
    directory = data_directory(data_dir)
    return _load_training(_content(config), directory, _origin(config, directory))


def load_test(config: DataConfig, data_dir: Path | None) -> Split:
    """The test part of ``config``'s set: the same for every split seed.

    Raises:
        DataError: one line; the set is missing or corrupt.

    """
    content = _content(config)
    if not isinstance(content, External):
        content = dataclasses.replace(content, validation=None, split_seed=0)
    directory = data_directory(data_dir)
    return _load_test(content, directory, _origin(config, directory))


def _origin(config: DataConfig, directory: Path) -> tuple[object, ...]:
    """Return what tells two sets of the same relative name apart: where names are looked for, and the file's state.

    The working directory of a notebook can change, and a file can be written again between two calls. For a folder it is
    the state of every folder in it, which changes when a file comes or goes. A file that is rewritten in place inside a
    folder is not seen: reading the state of every image at every call would take too long.
    """
    folders = (directory, *working_directories())
    name = getattr(config, "path", None)
    if name is None or isinstance(config, External):
        return folders
    states = []
    for folder in folders:
        with contextlib.suppress(OSError, ValueError):  # not there, or no name at all: the reader says so
            place = folder / name
            for one in [place, *(Path(below) for below, _, _ in os.walk(place))]:
                state = one.stat()
                states.append((state.st_ino, state.st_mtime_ns, state.st_size))
    return (*folders, *states)


def _content(config: DataConfig) -> DataConfig:
    """``config`` without what only changes how its pixels are seen: what a loaded set is remembered by."""
    if isinstance(config, External):
        return config
    return dataclasses.replace(config, binarisation="none", dequantise=False)


# Trials that follow each other in one process share one copy. Two, so that a comparison of two sets fits.
@lru_cache(maxsize=2)
def _load_training(config: DataConfig, directory: Path, origin: tuple[object, ...]) -> TrainingData:
    del origin  # only tells cached sets apart
    content = _checked(config, config.load(directory, train=True))
    total = len(content.labels)
    if config.validation is None and content.official is not None:
        out = content.official
        mask = torch.ones(total, dtype=torch.bool)
        mask[out] = False
        kept = mask.nonzero().flatten()
    else:
        count = min(content.validation, total - 1) if config.validation is None else config.validation
        strata = content.labels if content.stratified else None
        kept, out = splits.held_out(total, count, config.split_seed, "validation", labels=strata)
    return TrainingData(
        train=_split("train", content, kept),
        validation=_split("validation", content, out) if len(out) else None,
        levels=content.levels,
        num_classes=content.num_classes,
        data_hash=_digest(content),
        split_hash=content_digest(kept, out),
        label_names=content.label_names,
        notes=content.notes,
    )


@lru_cache(maxsize=2)
def _load_test(config: DataConfig, directory: Path, origin: tuple[object, ...]) -> Split:
    del origin  # only tells cached sets apart
    content = _checked(config, config.load(directory, train=False))
    return _split("test", content, torch.arange(len(content.labels)))


def _digest(content: Content) -> str:
    if content.rows is None:
        return content_digest(content.images, content.labels)
    return rows_digest(content.images, content.rows, content.labels)


def _checked(config: DataConfig, content: Content) -> Content:
    """``content``, if it is what it must be: a reader's mistake would else be a wrong number much later."""
    images, labels, levels = content.images, content.labels, content.levels
    count = len(images) if content.rows is None else len(content.rows)
    dtype = torch.uint8 if levels > 0 else torch.float32
    wrong = None
    if images.dim() != _IMAGE_DIMENSIONS or count == 0 or images[:1].numel() == 0:
        wrong = f"images must be [N, C, H, W] and not empty, got {list(images.shape)}"
    elif images.dtype != dtype:
        wrong = f"images must be {dtype} where levels is {levels}, got {images.dtype}"
    elif labels.dtype != torch.int64 or labels.shape != (count,):
        wrong = f"labels must be int64 [{count}], one for each image, got {labels.dtype} {list(labels.shape)}"
    elif int(labels.min()) < 0 or int(labels.max()) >= max(1, content.num_classes):
        wrong = f"labels must be 0..{max(1, content.num_classes) - 1}, got {int(labels.min())}..{int(labels.max())}"
    elif content.label_names and len(content.label_names) != content.num_classes:
        wrong = (
            f"label_names must be empty or {content.num_classes}, one for each label, got {len(content.label_names)}"
        )
    name = f"data {(config.path if isinstance(config, External) else config.kind)!r}"
    if wrong is not None:
        raise DataError(f"{name}: {wrong}")
    check_finite(images, name)
    if 0 < levels < torch.iinfo(torch.uint8).max:
        check_whole(images, levels, name)
    return content


def _split(name: str, content: Content, index: Tensor) -> Split:
    if content.mapped:
        split = mapped_split(name, content, index)
    elif len(index) == len(content.labels):
        split = make_split(name, content.images, content.labels)
    else:
        split = make_split(name, content.images[index], content.labels[index])
    return dataclasses.replace(split, label_names=content.label_names)


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

"""Data sets: the examples for training, validation and test, as integer pixels or real values.

A data set is one file and one line in :data:`DataConfig`, or a class outside the project with ``kind: external``. It has

* ``kind``: its name in records;
* ``validation``, ``split_seed`` and ``dequantise``, which :class:`DataFields` defines, and ``binarisation``;
* ``load(directory, *, train) -> Content``: returns the training or the test part, which is always the same. It is read
  from the data directory or generated. If this fails, it raises a :class:`DataError` of one line.

:class:`Content` also holds the levels, the number of labels, the number of examples to hold out, and whether the images
are memory-mapped. ``vae.data.pixels`` converts them to a model's input.
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
    """Return the absolute path of ``data_dir``, else of $RESEARCH_DATA_DIR, else of ./data.

    A driver resolves it once for its workers, because they have another working directory.
    """
    named = Path(data_dir or os.environ.get("RESEARCH_DATA_DIR") or "data").expanduser()
    candidates = [folder / named for folder in working_directories()]
    return next((path for path in candidates if path.is_dir()), candidates[-1]).resolve()


def load_training(config: DataConfig, data_dir: Path | None) -> TrainingData:
    """Return the training part of ``config``'s set, divided by its split seed. It is cached in memory.

    Raises:
        DataError: The set is missing or corrupt, or ``validation`` leaves nothing to train on.

    """
    directory = data_directory(data_dir)
    return _load_training(_content(config), directory, _origin(config, directory))


def load_test(config: DataConfig, data_dir: Path | None) -> Split:
    """Return the test part of ``config``'s set, which is the same for every split seed.

    Raises:
        DataError: The set is missing or corrupt.

    """
    content = _content(config)
    if not isinstance(content, External):
        content = dataclasses.replace(content, validation=None, split_seed=0)
    directory = data_directory(data_dir)
    return _load_test(content, directory, _origin(config, directory))


def clear_cache() -> None:
    """Drop all cached sets, so that the next call reads its files again.

    A file that has changed is always read again. Call this if a file inside a folder has changed.
    """
    _load_training.cache_clear()
    _load_test.cache_clear()


def _origin(config: DataConfig, directory: Path) -> tuple[object, ...]:
    """Return the cache key of a set besides its config: the searched folders and the state of its file.

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
        with contextlib.suppress(OSError, ValueError):  # A missing file or a bad name is reported by the reader.
            place = folder / name
            for one in [place, *(Path(below) for below, _, _ in os.walk(place))]:
                state = one.stat()
                states.append((state.st_ino, state.st_mtime_ns, state.st_size))
    return (*folders, *states)


def _content(config: DataConfig) -> DataConfig:
    """Return ``config`` without the fields that change only the conversion to a model's input. It is part of the cache key."""
    if isinstance(config, External):
        return config
    return dataclasses.replace(config, binarisation="none", dequantise=False)


# Successive trials in one process share one copy. Two sets are cached, so that a comparison of two sets fits.
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
    """Return ``content`` if it is valid. Otherwise a mistake of a reader would become a wrong number much later.

    Raises:
        DataError: Images, labels or names have a wrong shape, type or range.

    """
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
    "clear_cache",
    "data_directory",
    "load_test",
    "load_training",
]

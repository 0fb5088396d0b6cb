"""The common types of all data sets: images and labels in memory, and one kind of error."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from numpy.typing import NDArray

from vae.config import NonNegativeInt, part
from vae.system.places import working_directories

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

BLOCK = 4096  # rows of a memory-mapped set that are read at once

Array = NDArray[Any]  # numbers or texts of any type, as a file holds them

Binarisation = Literal["none", "expected", "static", "dynamic"]


class DataError(ValueError):
    """Data is missing, corrupt or too small. The message is one line with the file or set, the rule and the remedy."""


def locate(directory: Path, name: str, kind: Literal["file", "folder"]) -> Path:
    """Return the user's file or folder ``name``, searched in the data directory and then in the working directories.

    Raises:
        DataError: It is in neither place. The message names both.

    """
    candidates = [folder / name for folder in (directory, *working_directories())]
    there = os.path.isfile if kind == "file" else os.path.isdir  # both return False for an invalid name
    for path in candidates:
        if there(path):
            return path
    raise DataError(
        f"no {kind} {name[:200]!r}: looked for {str(candidates[0])[:300]} and {str(candidates[1])[:300]}; give data.path or --data-dir"
    )


@part
class DataFields:
    """The fields of every data set's config besides its ``kind`` and its default ``binarisation``.

    ``validation`` is the number of examples that are taken from the training part, by ``split_seed``. ``None`` is the
    default of the set, and 0 trains on everything. ``dequantise`` adds uniform noise to the integers (Theis et al. 2016).
    """

    validation: NonNegativeInt | None = None
    split_seed: NonNegativeInt = 0
    dequantise: bool = False


@dataclass(frozen=True, eq=False)
class Content:
    """One part of a set, training or test, as a reader returns it."""

    images: Tensor  # [N, C, H, W], uint8 0..levels, or float32 if levels is 0; may be memory-mapped
    labels: Tensor  # int64 [n], 0..num_classes - 1; all 0 if the set has none
    levels: int  # the largest integer value of a pixel; 0 for real values
    num_classes: int  # 0 if the set has no labels
    validation: int = 0  # the number of examples to hold out by default
    stratified: bool = False  # True to hold out the same share of each label
    official: Tensor | None = None  # indices of the published validation part, which is the default if there is one
    mapped: bool = False  # True if the images are larger than memory, so that nothing may copy them all
    rows: Tensor | None = None  # int64 [n], the rows of a memory-mapped ``images`` in this part; None for all
    label_names: tuple[str, ...] = ()  # by number; empty if each label's name is its number
    notes: tuple[str, ...] = ()  # one line for each thing in the files that is not used


@dataclass(frozen=True, eq=False)
class Split:
    """Examples in file order. They are shared within the process, so do not write to them."""

    name: str  # train, validation or test
    images: Tensor  # uint8 or float32 [N, C, H, W]; for a memory-mapped set those of the whole set, see index
    labels: Tensor  # int64 [n], values 0..num_classes - 1
    digest: str  # sha256 of images and labels, see content_digest
    index: Tensor | None = None  # the rows of a memory-mapped ``images`` in this split; None for all
    label_names: tuple[str, ...] = ()  # by number; empty if each label's name is its number

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Return channels, height and width."""
        _, channels, height, width = self.images.shape
        return channels, height, width

    def rows(self, index: Tensor | slice) -> Tensor:
        """Return the examples at ``index``, [n, C, H, W]. Only these are read from a memory-mapped set."""
        if self.index is not None:
            return self.images[self.index[index]]
        return self.images[index]


@dataclass(frozen=True, eq=False)
class TrainingData:
    """The training part of a set, divided into examples for training and for validation."""

    train: Split
    validation: Split | None  # None if nothing is held out
    levels: int  # the largest integer value of a pixel; 0 for real values
    num_classes: int  # 0 if there are no labels
    data_hash: str  # the hash of all training images and labels before the division
    split_hash: str  # the hash of the two sorted int64 index sets, train's first
    label_names: tuple[str, ...] = ()  # by number; empty if each label's name is its number
    notes: tuple[str, ...] = ()  # one line for each thing in the files that is not used

    @property
    def shape(self) -> tuple[int, int, int]:
        """Return channels, height and width."""
        return self.train.shape


def content_digest(*tensors: Tensor) -> str:
    """Return the sha256, in hex, of each tensor's dtype, shape and bytes in C order."""
    digest = hashlib.sha256()
    for tensor in tensors:
        _update(digest, tensor)
    return digest.hexdigest()


def rows_digest(images: Tensor, index: Tensor, labels: Tensor) -> str:
    """Return ``content_digest(images[index], labels)`` without a copy of the images."""
    digest = hashlib.sha256()
    _update(digest, images, index)
    _update(digest, labels)
    return digest.hexdigest()


def _update(digest: hashlib._Hash, tensor: Tensor, index: Tensor | None = None) -> None:
    count = len(tensor) if index is None else len(index)
    digest.update(f"{tensor[:0].numpy().dtype.str}{(count, *tensor.shape[1:])}".encode())
    # In blocks, because a memory-mapped tensor with permuted axes would be copied as a whole.
    for start in range(0, count, BLOCK):
        block = slice(start, min(start + BLOCK, count))
        digest.update(tensor[block if index is None else index[block]].contiguous().numpy().data)


def make_split(name: str, images: Tensor, labels: Tensor) -> Split:
    """Return the split of these examples, with its digest."""
    return Split(name=name, images=images, labels=labels, digest=content_digest(images, labels))


def mapped_split(name: str, content: Content, index: Tensor) -> Split:
    """Return the split of ``content``'s examples at ``index`` without a copy. Its digest is the one that a copy would have."""
    rows = index if content.rows is None else content.rows[index]
    labels = content.labels[index]
    digest = rows_digest(content.images, rows, labels)
    return Split(name=name, images=content.images, labels=labels, digest=digest, index=rows)

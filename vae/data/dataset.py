"""The common interface of all data sets: images and labels in memory, and one kind of error."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from vae.config import NonNegativeInt, part
from vae.system.places import working_directories

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

BLOCK = 4096  # rows of a memory-mapped set that are in memory at a time

Binarisation = Literal["none", "expected", "static", "dynamic"]


class DataError(ValueError):
    """Data that is missing, corrupt or too small: one line with the file or set, the rule and the remedy."""


def locate(directory: Path, name: str, kind: Literal["file", "folder"]) -> Path:
    """The file or folder of one's own called ``name``: from the data directory, else from where the program runs.

    Raises:
        DataError: naming both places.

    """
    candidates = [folder / name for folder in (directory, *working_directories())]
    there = os.path.isfile if kind == "file" else os.path.isdir  # which say no to what is no name at all
    for path in candidates:
        if there(path):
            return path
    raise DataError(
        f"no {kind} {name[:200]!r}: looked for {str(candidates[0])[:300]} and {str(candidates[1])[:300]}; give data.path or --data-dir"
    )


@part
class DataFields:
    """The fields of every data set's config besides its ``kind`` and its default ``binarisation``.

    ``validation``: examples taken from the training part, by ``split_seed``; ``None`` is the set's own
    default, 0 trains on everything. ``dequantise``: uniform noise is added to the integers (Theis et al.
    2016).
    """

    validation: NonNegativeInt | None = None
    split_seed: NonNegativeInt = 0
    dequantise: bool = False


@dataclass(frozen=True, eq=False)
class Content:
    """One part of a set, training or test, as it was read."""

    images: Tensor  # uint8 0..levels or, where levels is 0, float32 as they are: [N, C, H, W]; may be memory-mapped
    labels: Tensor  # int64 [n], 0..num_classes - 1; all 0 where the set has none
    levels: int
    num_classes: int  # 0 where the set has no labels
    validation: int = 0  # how many to hold out when the config doesn't say
    stratified: bool = False  # hold out each label's share
    official: Tensor | None = None  # indices that the set's makers held out; taken when the config doesn't say
    mapped: bool = False  # larger than memory: nothing may copy ``images`` whole
    rows: Tensor | None = None  # of a mapped set: the rows of images, int64 [n], that this part is; None: all
    label_names: tuple[str, ...] = ()  # by number; empty where each label is called by its number
    notes: tuple[str, ...] = ()  # a line for each thing in the files that is not used


@dataclass(frozen=True, eq=False)
class Split:
    """Examples in file order. Shared by everyone in the process who asked for them: not to be written to."""

    name: str  # train, validation or test
    images: Tensor  # uint8 or float32 [N, C, H, W]; of a memory-mapped set the whole set's, see index
    labels: Tensor  # int64 [n], values 0..num_classes - 1
    digest: str  # sha256 of images and labels, see content_digest
    index: Tensor | None = None  # the rows of images that are this split's, where the set is memory-mapped; else all
    label_names: tuple[str, ...] = ()  # by number; empty where each label is called by its number

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        _, channels, height, width = self.images.shape
        return channels, height, width

    def rows(self, index: Tensor | slice) -> Tensor:
        """The examples at ``index``, [n, C, H, W]; of a memory-mapped set only these are read."""
        if self.index is not None:
            return self.images[self.index[index]]
        return self.images[index]


@dataclass(frozen=True, eq=False)
class TrainingData:
    """The training part of a set, divided into what trains and what selects."""

    train: Split
    validation: Split | None  # None when nothing was held out
    levels: int  # the largest integer value that a pixel can have; 0: real values
    num_classes: int  # 0 where there are no labels
    data_hash: str  # of all training images and labels as loaded, before the division
    split_hash: str  # of the two sorted int64 index sets, train's first
    label_names: tuple[str, ...] = ()  # by number; empty where each label is called by its number
    notes: tuple[str, ...] = ()  # a line for each thing in the files that is not used

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        return self.train.shape


def content_digest(*tensors: Tensor) -> str:
    """Sha256, in hex, over each tensor's dtype, shape and bytes, in C order."""
    digest = hashlib.sha256()
    for tensor in tensors:
        _update(digest, tensor)
    return digest.hexdigest()


def rows_digest(images: Tensor, index: Tensor, labels: Tensor) -> str:
    """``content_digest(images[index], labels)``, of which no copy is made."""
    digest = hashlib.sha256()
    _update(digest, images, index)
    _update(digest, labels)
    return digest.hexdigest()


def _update(digest: hashlib._Hash, tensor: Tensor, index: Tensor | None = None) -> None:
    count = len(tensor) if index is None else len(index)
    digest.update(f"{tensor[:0].numpy().dtype.str}{(count, *tensor.shape[1:])}".encode())
    # In blocks: a memory-mapped tensor whose axes were permuted would be copied whole.
    for start in range(0, count, BLOCK):
        block = slice(start, min(start + BLOCK, count))
        digest.update(tensor[block if index is None else index[block]].contiguous().numpy().data)


def make_split(name: str, images: Tensor, labels: Tensor) -> Split:
    """The split of these examples, with its digest."""
    return Split(name=name, images=images, labels=labels, digest=content_digest(images, labels))


def mapped_split(name: str, content: Content, index: Tensor) -> Split:
    """The split of ``content``'s examples at ``index``, of which nothing is copied. Its digest is that of the copy."""
    rows = index if content.rows is None else content.rows[index]
    labels = content.labels[index]
    digest = rows_digest(content.images, rows, labels)
    return Split(name=name, images=content.images, labels=labels, digest=digest, index=rows)

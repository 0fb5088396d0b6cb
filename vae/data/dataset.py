"""What every data set gives: images and labels in memory, and one kind of error."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from vae.config import NonNegativeInt, part

if TYPE_CHECKING:
    from torch import Tensor

Binarisation = Literal["none", "expected", "static", "dynamic"]


class DataError(ValueError):
    """Data that is missing, corrupt or too small: one line with the file or set, the rule and the remedy."""


@part
class DataFields:
    """What every data set's config has besides its ``kind`` and its default ``binarisation``.

    ``validation``: examples taken from the training part, by ``split_seed``; ``None`` is the set's own
    default, 0 trains on everything. ``dequantise``: uniform noise is added to the integers (Theis et al.
    2016).
    """

    validation: NonNegativeInt | None = None
    split_seed: NonNegativeInt = 0
    dequantise: bool = False


@dataclass(frozen=True, eq=False)
class Split:
    """Examples in file order. Shared by everyone in the process who asked for them: not to be written to."""

    name: str  # train, validation or test
    images: Tensor  # uint8 [N, C, H, W], contiguous, values 0..levels
    labels: Tensor  # int64 [N], values 0..num_classes - 1
    digest: str  # sha256 of images and labels, see content_digest

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        _, channels, height, width = self.images.shape
        return channels, height, width


@dataclass(frozen=True, eq=False)
class TrainingData:
    """The training part of a set, divided into what trains and what selects."""

    train: Split
    validation: Split | None  # None when nothing was held out
    levels: int  # the largest integer value that a pixel can have
    num_classes: int
    data_hash: str  # of all training images and labels as loaded, before the division
    split_hash: str  # of the two sorted int64 index sets, train's first

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        _, channels, height, width = self.train.images.shape
        return channels, height, width


def content_digest(*tensors: Tensor) -> str:
    """Sha256, in hex, over each tensor's dtype, shape and bytes."""
    digest = hashlib.sha256()
    for tensor in tensors:
        array = tensor.contiguous().numpy()
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(array.data)
    return digest.hexdigest()


def make_split(name: str, images: Tensor, labels: Tensor) -> Split:
    """The split of these examples, with its digest."""
    return Split(name=name, images=images, labels=labels, digest=content_digest(images, labels))

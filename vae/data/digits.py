"""The handwritten digits that scikit-learn contains: real data without a download."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from vae.config import part
from vae.data.dataset import Binarisation, Content, DataFields
from vae.data.splits import held_out

LEVELS = 16
NUM_CLASSES = 10
DEFAULT_VALIDATION = 287  # a fifth of 1,437, which leaves 1,150 for training

# The file has no test part and does not name the writers. A fifth, stratified by label, is the test part. Its seed is a
# constant, so that the test figures of every sweep are of the same 360 images.
_TEST_SIZE = 360
_TEST_SEED = 0


@part
class Digits(DataFields):
    """1,797 images of 8×8 counts 0..16 (Alpaydin & Kaynak 1998, the test part of UCI's optdigits).

    There are 1,150 for training, 287 for validation and 360 for test, each stratified by label. A pixel counts the inked
    dots of a 4×4 cell, so its natural likelihood is binomial with n = 16.
    """

    kind: Literal["digits"] = "digits"
    binarisation: Binarisation = "none"

    def load(self, directory: Path, *, train: bool) -> Content:
        """Return the 1,437 examples for training and validation, or the 360 for test."""
        del directory
        images, labels = read(train=train)
        return Content(images, labels, LEVELS, NUM_CLASSES, validation=DEFAULT_VALIDATION, stratified=True)


def read(*, train: bool) -> tuple[Tensor, Tensor]:
    """Return images, uint8 [N, 1, 8, 8], and labels, int64 [N]: 1,437 for training and validation, or 360 for test."""
    images, labels = _everything()
    kept, test = held_out(len(images), _TEST_SIZE, _TEST_SEED, "digits test", labels=labels)
    index = kept if train else test
    return images[index], labels[index]


@cache
def _everything() -> tuple[Tensor, Tensor]:
    # The file of sklearn.datasets.load_digits. Importing scikit-learn would take two CPU seconds in each worker.
    package = find_spec("sklearn")
    assert package is not None, "a dependency of this package"
    assert package.origin is not None, "it has a folder"
    rows = np.loadtxt(
        Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz", delimiter=",", dtype=np.int64
    )
    images = torch.from_numpy(rows[:, :-1]).to(torch.uint8).view(-1, 1, 8, 8)
    return images, torch.from_numpy(rows[:, -1]).clone()

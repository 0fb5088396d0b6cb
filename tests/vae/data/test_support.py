"""Real values, what can't be done with them, and readers that are wrong."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest
import torch

from vae.data import Arrays, Content, DataError, load_test, load_training
from vae.data.dataset import BLOCK, make_split, mapped_split
from vae.data.pixels import Pixels
from vae.data.support import check_support
from vae.external import External
from vae.likelihoods import ContinuousBernoulli, Gaussian
from vae.train_config import TrainConfig

if TYPE_CHECKING:
    from collections.abc import Sequence

CPU = torch.device("cpu")
REAL = Arrays(path="t.npz")


def split_of(values, *, mapped=False):
    """A split of real values, in memory or by index."""
    images = torch.as_tensor(values, dtype=torch.float32)[:, None, None, :]
    labels = torch.zeros(len(images), dtype=torch.int64)
    if mapped:
        return mapped_split("train", Content(images, labels, 0, 0, mapped=True), torch.arange(len(images)))
    return make_split("train", images, labels)


@pytest.mark.parametrize("mapped", [False, True])
def test_real_values_are_seen_as_they_are(mapped):
    """With levels 0 nothing is divided: x is the file's own float32."""
    values = torch.randn(9, 4, generator=torch.Generator().manual_seed(0)) * 1000
    pixels = Pixels(split_of(values, mapped=mapped), REAL, levels=0, eval_seed=0, device=CPU, held_out=True)
    assert torch.equal(pixels.batch(slice(None)), values)
    assert torch.equal(pixels.batch(torch.tensor([3, 1])), values[[3, 1]])
    assert torch.allclose(pixels.mean().double(), values.double().mean(0))


@pytest.mark.parametrize(
    "how", [{"binarisation": b} for b in ("expected", "static", "dynamic")] + [{"dequantise": True}]
)
def test_real_values_have_no_levels_to_draw_from(how):
    """Binarisation and dequantisation of real values are refused."""
    with pytest.raises(DataError, match=r"needs whole numbers, and data 'arrays' has real values; use"):
        Pixels(split_of(torch.zeros(3, 2)), replace(REAL, **how), levels=0, eval_seed=0, device=CPU, held_out=False)


UNIT = TrainConfig(data=REAL, likelihood=ContinuousBernoulli())


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("value", [-0.001, 1.001])
def test_values_outside_the_support_are_named(mapped, value):
    """The first value outside [0, 1] is named by set, split, example and dimension, with likelihood and remedy."""
    values = torch.full((BLOCK + 9, 3), 0.5)
    values[BLOCK + 7, 2] = value
    values[BLOCK + 8, 0] = value
    with pytest.raises(DataError) as refusal:
        check_support(UNIT, split_of(values, mapped=mapped), 0)
    told = str(refusal.value)
    for word in (
        "'arrays'",
        "train",
        f"example {BLOCK + 7}",
        "dimension 2",
        f"{value:g}",
        "'continuous_bernoulli'",
        "'unit'",
    ):
        assert word in told
    assert "\n" not in told


def test_values_inside_the_support_pass():
    """The ends of [0, 1] are inside; a density on the reals takes anything; integers are divided into [0, 1]."""
    check_support(UNIT, split_of([[0.0, 1.0]]), 0)
    check_support(replace(UNIT, likelihood=Gaussian()), split_of([[-5.0, 7.0]]), 0)
    pixels = make_split("train", torch.full((2, 1, 1, 2), 255, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64))
    check_support(UNIT, pixels, 255)


READER = f"{__file__}:Reader"


@dataclass(frozen=True)
class Reader:
    """A set from outside, with the fields that the protocol asks for, which reads what it is told to."""

    images: Sequence[int] = (4, 1, 2, 2)
    dtype: str = "uint8"
    labels: Sequence[int] = (0, 1, 0, 1)
    levels: int = 16
    value: float | None = 16  # None: NaN
    classes: int = 2
    kind = "mine"
    binarisation = "none"
    dequantise = False
    validation: int | None = None
    split_seed = 0

    def load(self, directory, *, train):
        """What the fields say."""
        value = torch.nan if self.value is None else self.value
        images = torch.full(tuple(self.images), value, dtype=getattr(torch, self.dtype))
        return Content(images, torch.tensor(self.labels, dtype=torch.int64), self.levels, self.classes)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"images": [4, 2, 2]}, r"images must be \[N, C, H, W\] and not empty, got \[4, 2, 2\]"),
        ({"images": [0, 1, 2, 2], "labels": []}, r".* and not empty, got \[0, 1, 2, 2\]"),
        ({"dtype": "float32"}, r"images must be torch\.uint8 where levels is 16, got torch\.float32"),
        ({"levels": 0}, r"images must be torch\.float32 where levels is 0, got torch\.uint8"),
        ({"labels": [0, 1]}, r"labels must be int64 \[4\], one for each image, got torch\.int64 \[2\]"),
        ({"classes": 1}, r"labels must be 0\.\.0, got 0\.\.1"),
        ({"labels": [0, -1, 0, 1]}, r"labels must be 0\.\.1, got -1\.\.1"),
        ({"value": 17}, r"row 0, column 0 is 17"),
        ({"levels": 0, "dtype": "float32", "value": None}, r"row 0, column 0 is nan"),
    ],
    ids=str,
)
@pytest.mark.parametrize("load", [load_training, load_test])
def test_a_reader_that_is_wrong(tmp_path, fields, told, load):
    """Content that is not what it must be is refused by the class's path, before anything is trained on it."""
    with pytest.raises(DataError, match=r"test_support\.py:Reader': " + told):
        load(External(path=READER, settings=fields), tmp_path)


def test_a_reader_that_is_right(tmp_path):
    """A class from outside that has the protocol's fields is a set like any other."""
    data = load_training(External(path=READER, settings={"validation": 1}), tmp_path)
    assert ([len(data.train), len(data.validation)], data.levels, data.num_classes) == ([3, 1], 16, 2)

"""What every data set's config promises, whatever its kind."""

from __future__ import annotations

import json
from typing import get_args

import pytest
from pydantic import TypeAdapter, ValidationError

from vae.data import Arrays, DataConfig, Digits, Emnist, ImageFolder, Mnist, TorchvisionSet, load_training
from vae.data.torchvision_sets import default_validation, num_classes
from vae.external import External

ADAPTER: TypeAdapter[DataConfig] = TypeAdapter(DataConfig)
PARTS = tuple(part for part in get_args(get_args(DataConfig)[0]) if part is not External)
NEEDED = {ImageFolder: {"path": "faces"}, Arrays: {"path": "table.csv"}}  # what has no default


def made(part, **fields):
    """A config of ``part``."""
    return part(**NEEDED.get(part, {}), **fields)


KINDS = [made(part).kind for part in PARTS]


def read(values: dict[str, object]) -> DataConfig:
    """The config that these JSON values say."""
    return ADAPTER.validate_json(json.dumps(values))


@pytest.mark.parametrize("part", PARTS, ids=KINDS)
def test_json_round_trip(part: type[Digits]) -> None:
    """A config written as JSON and read back is the same config."""
    config = made(part, validation=7, split_seed=3, dequantise=True, binarisation="static")
    assert ADAPTER.validate_json(ADAPTER.dump_json(config)) == config


@pytest.mark.parametrize("part", PARTS, ids=KINDS)
@pytest.mark.parametrize(
    "wrong",
    [
        {"validatoin": 5},
        {"validation": -1},
        {"validation": 5.0},
        {"validation": True},
        {"split_seed": "0"},
        {"split_seed": None},
        {"binarisation": "sometimes"},
        {"dequantise": 1},
        {"kind": "no_such_set"},
    ],
    ids=lambda wrong: ",".join(f"{k}={v!r}" for k, v in wrong.items()),
)
def test_nonsense_is_refused(part: type[Digits], wrong: dict[str, object]) -> None:
    """Unknown keys, wrong types and impossible values are refused, never coerced."""
    with pytest.raises(ValidationError):
        read({"kind": made(part).kind, **NEEDED.get(part, {}), **wrong})
    with pytest.raises(ValidationError):
        made(part, **wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("part", PARTS, ids=KINDS)
def test_frozen_and_keyword_only(part: type[Digits]) -> None:
    """A config can't change after it was checked, nor be filled in by position."""
    with pytest.raises((AttributeError, ValidationError)):
        made(part).split_seed = 1
    with pytest.raises((TypeError, ValidationError)):
        part(5)  # type: ignore[call-arg, misc]


def test_emnist_split_belongs_to_emnist() -> None:
    """A key of one set is refused in another."""
    with pytest.raises(ValidationError):
        read({"kind": "mnist", "emnist_split": "letters"})


@pytest.mark.parametrize("part", PARTS, ids=KINDS)
def test_default_binarisation(part: type[Digits]) -> None:
    """Grey drawings are binarised anew at each draw by default; counts, photographs and tables are left as they are."""
    drawings = {"mnist", "fashion_mnist", "kmnist", "emnist", "omniglot"}
    config = made(part)
    assert config.binarisation == ("dynamic" if config.kind in drawings else "none")


@pytest.mark.parametrize(
    ("kind", "total", "expected"),
    [
        ("mnist", 60_000, 10_000),
        ("fashion_mnist", 60_000, 10_000),
        ("kmnist", 60_000, 10_000),
        ("emnist", 112_800, 11_280),
        ("cifar10", 50_000, 5_000),
        ("svhn", 73_257, 7_000),
        ("mnist", 600, 100),
        ("mnist", 5, 0),
    ],
)
def test_default_validation(kind: str, total: int, expected: int) -> None:
    """The usual number is held out, at most a sixth of what there is."""
    config = read({"kind": kind})
    assert not isinstance(config, Digits)
    assert default_validation(config, total) == expected


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (Mnist(), 10),
        (Emnist(emnist_split="balanced"), 47),
        (Emnist(emnist_split="byclass"), 62),
        (Emnist(emnist_split="bymerge"), 47),
        (Emnist(emnist_split="letters"), 26),
        (Emnist(emnist_split="mnist"), 10),
    ],
    ids=str,
)
def test_num_classes(config: TorchvisionSet, expected: int) -> None:
    """As many labels as the set's paper says."""
    assert num_classes(config) == expected


def test_one_copy_for_all_who_ask() -> None:
    """Trials that differ in how pixels are seen share one copy in memory."""
    assert load_training(Digits(), None) is load_training(Digits(dequantise=True), None)

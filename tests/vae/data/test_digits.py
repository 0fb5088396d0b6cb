"""The digits that scikit-learn ships: what is trained on, selected on and tested on."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from vae.data import DataError, Digits, Split, load_test, load_training


def rows(*splits: Split | None) -> list[bytes]:
    """Each example's bytes, for comparing sets of examples."""
    return [image.numpy().tobytes() for split in splits if split for image in split.images]


def test_every_digit_is_in_exactly_one_split() -> None:
    """Train, validation and test together are the 1,797 images, none lost and none twice."""
    data, test = load_training(Digits(), None), load_test(Digits(), None)
    assert data.validation is not None
    assert [len(s.images) for s in (data.train, data.validation, test)] == [1150, 287, 360]
    everything = [image.tobytes() for image in load_digits().images.astype(np.uint8)]
    assert sorted(rows(data.train, data.validation, test)) == sorted(everything)


def test_counts_and_labels_are_the_originals() -> None:
    """Counts 0 to 16 as integers, one channel of 8 by 8, each with its own label."""
    data = load_training(Digits(validation=0), None)
    digits = load_digits()
    label_of = {i.astype(np.uint8).tobytes(): t for i, t in zip(digits.images, digits.target, strict=True)}
    assert (data.levels, data.num_classes, data.shape) == (16, 10, (1, 8, 8))
    assert (data.train.images.dtype, data.train.labels.dtype) == (torch.uint8, torch.int64)
    assert int(data.train.images.max()) == 16
    assert [label_of[row] for row in rows(data.train)] == data.train.labels.tolist()


def test_stratified() -> None:
    """Each label's share of validation and test is its share of the whole, to within one image."""
    data, test = load_training(Digits(), None), load_test(Digits(), None)
    assert data.validation is not None
    everything = torch.bincount(torch.from_numpy(load_digits().target)).double()
    training = torch.bincount(torch.cat([data.train.labels, data.validation.labels])).double()
    assert (torch.bincount(test.labels) - everything * 360 / 1797).abs().max() < 1
    assert (torch.bincount(data.validation.labels) - training * 287 / 1437).abs().max() < 1


def test_golden_hashes() -> None:
    """Data and split are those of every earlier version: a change here makes old records incomparable."""
    data, test = load_training(Digits(), None), load_test(Digits(), None)
    assert data.data_hash == "99a818f96e107a89283035e34f17aec75051949a9f53083b83b147a62728d385"
    assert data.split_hash == "2a4e8bd34be8de248dbfbea04ec097d747bf0b2a66a83d4dd84ec6d77c990f1b"
    assert data.train.digest == "3391c8b5f5c93eae27d64ff13b44cea85be72cc847b16ebea6aec03da132946f"
    assert test.digest == "cad4c6327eab4bfeecb158b3b7e141d295fe30a7a85b7539baba2bb1f2083341"


def test_split_seed_moves_validation_and_never_test() -> None:
    """Another split seed selects on other images; data and test stay what they were."""
    first, second = (load_training(Digits(split_seed=seed), None) for seed in (0, 1))
    assert first.validation is not None
    assert second.validation is not None
    assert first.split_hash != second.split_hash
    assert first.validation.digest != second.validation.digest
    assert first.data_hash == second.data_hash
    tests = {load_test(Digits(split_seed=seed, validation=50), None).digest for seed in range(3)}
    assert len(tests) == 1


def test_no_validation() -> None:
    """With ``validation: 0`` all 1,437 images train, and the split hash says so."""
    data = load_training(Digits(validation=0), None)
    assert data.validation is None
    assert len(data.train.images) == 1437
    assert data.split_hash != load_training(Digits(), None).split_hash


@pytest.mark.parametrize("count", [1437, 5000])
def test_too_much_validation(count: int) -> None:
    """Holding out everything is refused with both numbers."""
    with pytest.raises(DataError, match=rf"1437.*{count}"):
        load_training(Digits(validation=count), None)

"""Labels with names: how they are numbered, what they are called, and what is no label."""

from __future__ import annotations

import numpy as np
import pytest

from vae.data import Arrays, DataError, ImageFolder, load_test, load_training
from vae.data.labels import label_name, label_number, natural
from vae.serialization import config_hash, from_record, to_dict
from vae.train_config import TrainConfig


def loaded(tmp_path, labels, **fields):
    """The whole of a set whose labels are these."""
    np.savez(tmp_path / "some.npz", x=np.random.default_rng(0).normal(size=(len(labels), 3)), y=np.array(labels))
    config = Arrays(path="some.npz", labels="y", validation=0, test_fraction=0, **fields)
    return load_training(config, tmp_path)


@pytest.mark.parametrize(
    ("labels", "numbers", "names"),
    [
        (["normal", "anomaly", "normal"], [1, 0, 1], ("anomaly", "normal")),
        (["class10", "class2", "class2"], [1, 0, 0], ("class2", "class10")),
        (["10", "9", "1"], [2, 1, 0], ("1", "9", "10")),
        ([0, 2, 0], [0, 1, 0], ("0", "2")),
        ([3, 1, 2], [2, 0, 1], ("1", "2", "3")),
        ([1.0, 3.0, 1.0], [0, 1, 0], ("1", "3")),
        ([90210, 10001, 90210], [1, 0, 1], ("10001", "90210")),
        ([False, True, False], [0, 1, 0], ("false", "true")),
        ([0, 1, 2], [0, 1, 2], ()),
        (["0", "1", "2"], [0, 1, 2], ()),
        (["same", "same", "same"], [0, 0, 0], ("same",)),
        ([b"b", b"a", b"a"], [1, 0, 0], ("a", "b")),
    ],
    ids=str,
)
def test_labels_are_numbered_by_the_values_that_occur(tmp_path, labels, numbers, names):
    """The values that occur are numbered in natural order and keep their names."""
    data = loaded(tmp_path, labels)
    assert data.train.labels.tolist() == numbers
    assert data.label_names == names
    assert data.train.label_names == names
    assert data.num_classes == max(numbers) + 1


@pytest.mark.parametrize(
    ("labels", "numbers", "classes"),
    [(["class10", "class2"], [0, 1], 2), ([0, 2], [0, 2], 3), (["a", ""], [1, 0], 2), ([False, True], [0, 1], 2)],
    ids=str,
)
def test_labels_of_an_earlier_record_are_numbered_as_they_were(tmp_path, labels, numbers, classes):
    """``reading`` 1 is the numbering of version 0.1.0: the order of the text, and whole numbers as they are."""
    data = loaded(tmp_path, labels, reading=1)
    assert (data.train.labels.tolist(), data.num_classes) == (numbers, classes)


@pytest.mark.parametrize("data", [Arrays(path="a.npz"), ImageFolder(path="a")], ids=lambda data: data.kind)
def test_a_config_of_an_earlier_record_keeps_its_meaning_and_hash(data):
    """A record without the later fields means how version 0.1.0 read files, and its hash still fits."""
    config = TrainConfig(data=data)
    values = to_dict(config)
    for name in ("reading", "background"):
        values["data"].pop(name, None)
    earlier = from_record(values)
    assert earlier.data.reading == 1
    assert config.data.reading == 2
    assert config_hash(earlier) == config_hash(config)


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        (["a", "", "b"], r"row 1 has no label"),
        (["a", "  ", "b"], r"row 1 has no label"),
        (["a", "nan", "b"], r"row 1 has no label"),
        ([0.0, np.nan, 1.0], r"got nan in row 1"),
        ([0.5, 1.0, 2.0], r"got 0\.5 in row 0"),
        (list(range(1000)), r"data\.labels has 1,000 different values in 1,000 examples: these are no classes"),
        ([f"id{i}" for i in range(300)], r"300 different values in 300 examples"),
        (list(range(30_000)) * 2, r"30,000 different values in 60,000 examples"),
        (np.arange(3).astype("datetime64[D]"), r"labels must be names or whole numbers, got datetime64"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_labels_that_are_no_classes_are_refused(tmp_path, labels, told):
    """A missing label, fractions, identifiers and dates are refused in one line."""
    with pytest.raises(DataError, match=told) as refusal:
        loaded(tmp_path, labels)
    assert "\n" not in str(refusal.value)


def test_an_empty_cell_in_a_column_of_names_is_refused(tmp_path):
    """An empty cell is no class of its own."""
    (tmp_path / "a.csv").write_text("u,y\n1,cat\n2,\n3,dog\n")
    with pytest.raises(DataError, match=r"a\.csv: row 1 has no label"):
        load_training(Arrays(path="a.csv", labels="y"), tmp_path)


@pytest.mark.parametrize(
    ("label", "names", "number"),
    [
        ("cat", ("cat", "dog"), 0),
        ("Dog", ("cat", "dog"), 1),
        (1, ("cat", "dog"), 1),
        ("1", ("cat", "dog"), 1),
        (2, ("1", "2", "3"), 1),
        ("10", ("2", "10"), 1),
        (3, (), 3),
        (0, ("false", "true"), 0),
        ("True", ("false", "true"), 1),
    ],
)
def test_label_number_accepts_names_and_numbers(label, names, number):
    """A label is found by its name, or by its number where no name is a number."""
    assert label_number(label, names, len(names) or 10, "--label") == number


@pytest.mark.parametrize(
    ("label", "names", "told"),
    [
        ("bird", ("cat", "dog"), r"--label 'bird' is no label of the data: it must be one of 'cat', 'dog'"),
        (2, ("cat", "dog"), r"--label '2' is no label"),
        (0, ("1", "2"), r"--label '0' is no label"),
        (10, (), r"--label must be 0 to 9, got 10"),
    ],
)
def test_label_number_refuses_what_is_no_label(label, names, told):
    """The message names the labels that there are."""
    with pytest.raises(DataError, match=told):
        label_number(label, names, len(names) or 10, "--label")


@pytest.mark.parametrize(("train_label", "kept"), [("normal", 30), (1, 30), ("anomaly", 10), (0, 10), ("Normal", 30)])
def test_train_label_accepts_a_name(tmp_path, train_label, kept):
    """``train_label`` is a name, or its number as before."""
    labels = ["anomaly" if i % 4 == 0 else "normal" for i in range(40)]
    data = loaded(tmp_path, labels, train_label=train_label)
    assert len(data.train) == kept


def test_train_label_of_numbers_with_gaps_is_the_number_in_the_file(tmp_path):
    """Labels 1, 2 and 3: ``train_label`` 3 trains on the examples that are labelled 3."""
    data = loaded(tmp_path, [1, 2, 3, 3], train_label=3)
    assert [label_name(data.label_names, y) for y in data.train.labels.tolist()] == ["3", "3"]


def test_names_are_those_of_both_files(tmp_path):
    """A label that only the test file has is one of the names, and both parts number alike."""
    np.savez(tmp_path / "a.npz", x=np.zeros((3, 2)), y=np.array([2, 10, 2]))
    np.savez(tmp_path / "b.npz", x=np.zeros((2, 2)), y=np.array([7, 10]))
    config = Arrays(path="a.npz", test_path="b.npz", labels="y", validation=0)
    assert load_training(config, tmp_path).train.labels.tolist() == [0, 2, 0]
    assert load_test(config, tmp_path).labels.tolist() == [1, 2]
    assert load_test(config, tmp_path).label_names == ("2", "7", "10")


def test_natural_order_compares_numbers_as_numbers():
    """Digits in a text compare as numbers, of whatever length."""
    texts = ["a10", "a9", "b", "10", "9", "09", "1", "a", "", "9" * 5000, "a1b10", "a1b9"]
    expected = ["", "1", "09", "9", "10", "9" * 5000, "a", "a1b9", "a1b10", "a9", "a10", "b"]
    assert sorted(texts, key=natural) == expected

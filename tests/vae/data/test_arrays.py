"""Tables and images from array files: what is read, scaled, divided and refused."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import csv, parquet
from pydantic import ValidationError

import vae.data.arrays
from vae.data import Arrays, DataError, load_test, load_training

DRAWN = np.random.default_rng(0)
TABLE = DRAWN.normal(5.0, 3.0, (50, 4))
LABELS = np.arange(50) % 3


@pytest.fixture
def put(tmp_path, monkeypatch):
    """Writes an .npz of these arrays to the data directory, which is not the working directory."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "data"
    folder.mkdir()

    def put(name="some.npz", **arrays):
        np.savez(folder / name, **arrays)
        return folder

    return put


def everything(config, folder):
    """All values, training, validation and test, in no particular order."""
    data, test = load_training(config, folder), load_test(config, folder)
    splits = [data.train, data.validation, test]
    return torch.cat([s.images for s in splits if s is not None]).flatten(1), [s for s in splits if s is not None]


def test_a_table_is_divided_and_unchanged(put):
    """Every row is in exactly one split with its own label, as float32; a fifth and a tenth of the rest are held out."""
    folder = put(x=TABLE, y=LABELS)
    values, splits = everything(Arrays(path="some.npz", labels="y"), folder)
    assert [len(s) for s in splits] == [36, 4, 10]
    assert splits[0].shape == (1, 1, 4)
    assert values.dtype == torch.float32
    label_of = {row.tobytes(): label for row, label in zip(TABLE.astype(np.float32), LABELS, strict=True)}
    found = {row.numpy().tobytes(): y for s in splits for row, y in zip(s.images, s.labels.tolist(), strict=True)}
    assert found == label_of
    assert load_training(Arrays(path="some.npz", labels="y"), folder).levels == 0
    assert load_training(Arrays(path="some.npz", labels="y"), folder).num_classes == 3


def test_the_split_seed_moves_validation_and_never_test(put):
    """Another seed selects on other rows; the test rows stay."""
    folder = put(x=TABLE)
    ours, others = (Arrays(path="some.npz", split_seed=seed) for seed in (0, 1))
    assert load_training(ours, folder).validation.digest != load_training(others, folder).validation.digest
    assert load_test(ours, folder).digest == load_test(others, folder).digest


def test_digests_are_those_of_every_earlier_version(put):
    """The same file gives the same data, split and test: a change here makes old records incomparable."""
    folder = put(x=np.arange(40, dtype=np.float32).reshape(20, 2))
    data, test = load_training(Arrays(path="some.npz"), folder), load_test(Arrays(path="some.npz"), folder)
    assert [data.data_hash[:12], data.split_hash[:12], test.digest[:12]] == [
        "8d5eb96db27d",
        "39668c0582ed",
        "8c01960ae44e",
    ]


@pytest.mark.parametrize("scaling", ["unit", "standardise"])
def test_scaling_is_of_the_training_part_alone(put, scaling):
    """Test is moved by training's numbers, whatever its own are; a constant column becomes 0."""
    folder = put(x=np.column_stack([TABLE, np.full(50, 0.1)]))
    np.savez(folder / "other.npz", x=np.column_stack([TABLE * 10, np.full(50, 0.1)]))
    config = Arrays(path="some.npz", test_path="other.npz", scaling=scaling, validation=0)
    train, test = load_training(config, folder).train.images[:, 0, 0], load_test(config, folder).images[:, 0, 0]
    low, high = (0.0, 1.0) if scaling == "unit" else (TABLE.mean(0), None)
    if scaling == "unit":
        assert torch.equal(train[:, :4].amin(0), torch.full((4,), low))
        assert torch.equal(train[:, :4].amax(0), torch.full((4,), high))
        expected = (TABLE * 10 - TABLE.min(0)) / (TABLE.max(0) - TABLE.min(0))
    else:
        assert np.allclose(train[:, :4].double().mean(0), 0, atol=1e-6)
        assert np.allclose(train[:, :4].double().std(0, correction=0), 1, atol=1e-6)
        expected = (TABLE * 10 - TABLE.mean(0)) / TABLE.std(0)
    assert np.allclose(test[:, :4], expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(train[:, 4], torch.zeros(50))
    assert torch.equal(test[:, 4], torch.zeros(50))


def test_scaling_sees_only_the_rows_that_train(put):
    """With a drawn test part and a label to train on, neither test rows nor other labels move the scale."""
    values = TABLE.copy()
    values[LABELS != 0] += 1000
    folder = put(x=values, y=LABELS)
    config = Arrays(path="some.npz", labels="y", train_label=0, scaling="standardise", validation=0)
    train = load_training(config, folder).train
    assert set(train.labels.tolist()) == {0}
    assert np.allclose(train.images.double().mean(0), 0, atol=1e-6)
    assert set(load_test(config, folder).labels.tolist()) == {0, 1, 2}
    everybody = load_test(Arrays(path="some.npz", labels="y"), folder)
    assert torch.equal(load_test(config, folder).labels, everybody.labels)


def test_scaling_keeps_what_float32_would_lose(put):
    """Seconds since 1970 that differ by one stay apart."""
    folder = put(x=1.7e9 + np.arange(10.0)[:, None])
    config = Arrays(path="some.npz", scaling="unit", validation=0, test_fraction=0)
    assert np.allclose(load_training(config, folder).train.images.flatten(), np.arange(10) / 9, atol=1e-6)


def test_labels_are_optional(put):
    """Without labels there are no classes, and each label is 0."""
    data = load_training(Arrays(path="some.npz"), put(x=TABLE))
    assert data.num_classes == 0
    assert data.train.labels.tolist() == [0] * 36


def test_names_are_numbered_over_both_files(put):
    """A name has one number, also where a file lacks some of the names."""
    folder = put(x=TABLE[:3], y=np.array(["dog", "ant", "dog"]))
    np.savez(folder / "other.npz", x=TABLE[:2], y=np.array(["cat", "dog"]))
    config = Arrays(path="some.npz", labels="y", test_path="other.npz", validation=0)
    assert load_training(config, folder).train.labels.tolist() == [2, 0, 2]
    assert load_test(config, folder).labels.tolist() == [1, 2]
    assert load_training(config, folder).num_classes == 3


@pytest.mark.parametrize(
    ("values", "fields", "levels", "dtype"),
    [
        (np.array([[0, 255]], np.uint8), {}, 255, torch.uint8),
        (np.array([[0, 3]], np.uint8), {"levels": 16}, 16, torch.uint8),
        (np.array([[0.0, 16.0]]), {"levels": 16}, 16, torch.uint8),
        (np.array([[0, 16]], np.int64), {"levels": 16}, 16, torch.uint8),
        (np.array([[False, True]]), {}, 1, torch.uint8),
        (np.array([[0, 3]], np.int16), {}, 0, torch.float32),
        (np.array([[0, 3]], np.uint8), {"scaling": "standardise"}, 0, torch.float32),
    ],
    ids=str,
)
def test_what_is_whole_numbers(put, values, fields, levels, dtype):
    """uint8, bool, and whatever has ``levels`` are whole numbers; all else is real values."""
    data = load_training(Arrays(path="some.npz", validation=0, test_fraction=0, **fields), put(x=values))
    assert (data.levels, data.train.images.dtype) == (levels, dtype)
    if "scaling" not in fields:
        assert np.array_equal(data.train.images.flatten(), values.astype(np.float64).flatten())


@pytest.mark.parametrize(
    ("shape", "layout", "expected"),
    [
        ((5, 7), None, (1, 1, 7)),
        ((5, 8, 7), None, (1, 8, 7)),
        ((5, 3, 8, 7), None, (3, 8, 7)),
        ((5, 8, 7, 3), None, (3, 8, 7)),
        ((5, 3, 8, 3), "channels_first", (3, 8, 3)),
        ((5, 3, 8, 3), "channels_last", (3, 3, 8)),
    ],
    ids=str,
)
def test_layouts(put, shape, layout, expected):
    """Tables, grey and colour images become [N, C, H, W], each value in its place."""
    values = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    config = Arrays(path="some.npz", layout=layout, validation=0, test_fraction=0)
    images = load_training(config, put(x=values)).train.images
    assert tuple(images.shape[1:]) == expected
    last = layout == "channels_last" or (layout is None and shape[1:] == (8, 7, 3))
    assert np.array_equal(images, values.transpose(0, 3, 1, 2) if last else values.reshape(images.shape))
    assert images.is_contiguous()


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_tables_with_columns(tmp_path, suffix):
    """Columns in order, the label's taken out, by name; whole numbers and truth values are numbers too."""
    table = pa.table({"a": [1.5, 2.5], "kind": ["b", "a"], "n": [1, 2], "t": [True, False]})
    path = tmp_path / f"t.{suffix}"
    csv.write_csv(table, path) if suffix == "csv" else parquet.write_table(table, path)
    train = load_training(Arrays(path=path.name, labels="kind", validation=0, test_fraction=0), tmp_path).train
    assert train.images.flatten(1).tolist() == [[1.5, 1, 1], [2.5, 2, 0]]
    assert train.labels.tolist() == [1, 0]


def test_npy_with_labels_in_another(tmp_path):
    """An .npy of values takes its labels from the .npy that ``labels`` names."""
    np.save(tmp_path / "v.npy", TABLE)
    np.save(tmp_path / "l.npy", LABELS)
    train = load_training(Arrays(path="v.npy", labels="l.npy", validation=0, test_fraction=0), tmp_path).train
    assert train.labels.tolist() == LABELS.tolist()


def test_the_working_directory_is_second(put, tmp_path):
    """A path is looked for in the data directory and then where the program runs."""
    folder = put(x=TABLE)
    np.savez(tmp_path / "some.npz", x=TABLE[:7])
    np.savez(tmp_path / "here.npz", x=TABLE[:9])
    sizes = [
        len(load_training(Arrays(path=p, validation=0, test_fraction=0), folder).train)
        for p in ("some.npz", "here.npz")
    ]
    assert sizes == [50, 9]
    with pytest.raises(DataError, match=r"no file 'none\.npz': looked for \S+data/none\.npz and \S+/none\.npz"):
        load_training(Arrays(path="none.npz"), folder)


def nan(value=np.nan):
    """The table with ``value`` in row 7, column 2."""
    values = TABLE.copy()
    values[7, 2] = value
    return values


@pytest.mark.parametrize(
    ("arrays", "fields", "told"),
    [
        ({"x": nan()}, {}, r"some\.npz: row 7, column 2 is nan; values must be finite"),
        ({"x": nan(-np.inf)}, {}, r"row 7, column 2 is -inf"),
        ({"x": nan(1e300)}, {}, r"row 7, column 2 is 1e\+300; values must be finite float32"),
        ({"X": TABLE}, {}, r"some\.npz has no array 'x': it has X"),
        ({"x": TABLE}, {"labels": "y"}, r"some\.npz has no array 'y': it has x"),
        ({"x": TABLE, "y": LABELS[:9]}, {"labels": "y"}, r"50 examples but 9 labels in 'y'"),
        ({"x": TABLE, "y": LABELS - 1}, {"labels": "y"}, r"labels must be names or whole numbers .* got -1 in row 0"),
        ({"x": TABLE, "y": TABLE[:, 0]}, {"labels": "y"}, r"labels must be names or whole numbers"),
        ({"x": TABLE, "y": LABELS}, {"labels": "y", "train_label": 9}, r"no training example of \S+ has it"),
        ({"x": TABLE}, {"levels": 16}, r"row 0, column 0 is .* data\.levels 16 says whole numbers 0\.\.16"),
        ({"x": np.array([[3, 17]], np.uint8)}, {"levels": 16}, r"row 0, column 1 is 17, but data\.levels 16"),
        ({"x": np.array(["a"])}, {}, r"values must be numbers, got <U1"),
        ({"x": np.zeros((5, 8, 7, 9))}, {}, r"shape \(5, 8, 7, 9\) doesn't show .* set data\.layout"),
        ({"x": np.zeros((5, 3, 7, 3))}, {}, r"shape \(5, 3, 7, 3\) doesn't show"),
        ({"x": np.zeros(5)}, {}, r"2 to 4 dimensions, got 1: \(5,\)"),
        ({"x": np.zeros((0, 5))}, {}, r"holds no values: its shape is \(0, 5\)"),
        ({"x": np.array([[None]], object)}, {}, r"some\.npz can't be read: .*allow_pickle"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_refusals(put, arrays, fields, told):
    """What can't be meant is one line with the file, the place and the rule."""
    with pytest.raises(DataError, match=told) as refusal:
        load_training(Arrays(path="some.npz", **fields), put(**arrays))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (TABLE[:, :3], r"other\.npz must be of \S+some\.npz's shape \(1, 1, 4\), got \(1, 1, 3\)"),
        (nan(), r"other\.npz: row 7, column 2 is nan"),
    ],
    ids=["shape", "nan"],
)
def test_a_wrong_test_file_is_refused_before_training(put, other, told):
    """What is wrong with the test part is said when the training part is loaded."""
    folder = put(x=TABLE)
    np.savez(folder / "other.npz", x=other)
    with pytest.raises(DataError, match=told):
        load_training(Arrays(path="some.npz", test_path="other.npz"), folder)


def test_no_test_part(put):
    """With ``test_fraction: 0`` all rows train, and asking for test is refused."""
    folder = put(x=TABLE)
    config = Arrays(path="some.npz", test_fraction=0, validation=0)
    assert len(load_training(config, folder).train) == 50
    with pytest.raises(DataError, match=r"no test examples: data\.test_fraction is 0 of 50; raise it"):
        load_test(config, folder)


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("a.csv", "1,2\n3,4\n", r"the first line must name the columns, got 1, 2"),
        ("a.csv", "u,v\n1,2\n3,\n", r"row 1, column 'v' is nan"),
        ("a.csv", "u,v\n1,x\n", r"column 'v' holds string, not numbers; drop it, or name it in data\.labels"),
        ("a.csv", "u,y\n1,2\n", r"labels 'l'|0 columns 'l'"),
        ("a.csv", "l,u\n,2\n1,2\n", r"row 0 has no label in column 'l'"),
        ("a.csv", "l\n1\n", r"no column of values"),
        ("a.csv", "", r"a\.csv can't be read"),
        ("a.csv", "u,v\n1,2\n3\n", r"a\.csv can't be read"),
        ("a.parquet", "no parquet", r"a\.parquet can't be read"),
        ("a.npz", "no archive", r"a\.npz can't be read"),
        ("a.npy", "no array", r"a\.npy can't be read"),
        ("a.npy", "", r"a\.npy can't be read"),
        ("a.txt", "1 2", r"must end in \.npz, \.npy, \.parquet or \.csv, got '\.txt'"),
    ],
    ids=str,
)
def test_damaged_files(tmp_path, name, text, told):
    """A file that is not what its name says is one line with its name."""
    (tmp_path / name).write_text(text)
    labels = "l" if "l" in text.split("\n", maxsplit=1)[0].split(",") or "'l'" in told else None
    with pytest.raises(DataError, match=told) as refusal:
        load_training(Arrays(path=name, labels=labels), tmp_path)
    assert name in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_truncated_archive(put):
    """An .npz that was cut off, anywhere, is refused by name."""
    folder = put(x=TABLE, y=LABELS)
    whole = (folder / "some.npz").read_bytes()
    for length in range(0, len(whole), 97):
        (folder / "some.npz").write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"some\.npz can't be read"):
            vae.data.arrays.Arrays(path="some.npz", labels="y").load(folder, train=True)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"levels": 3, "scaling": "unit"}, "scaling must be 'none' with levels"),
        ({"train_label": 0}, "train_label 0 needs labels"),
    ],
    ids=str,
)
def test_contradictions_are_refused_at_once(fields, told):
    """Fields that contradict each other are refused before any file is looked for."""
    with pytest.raises(ValidationError, match=told):
        Arrays(path="some.npz", **fields)

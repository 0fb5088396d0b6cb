"""Tables as other programs write them: the index of pandas, separators, decimals, encodings."""

from __future__ import annotations

import codecs
import decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from vae.data import Arrays, DataError, load_test, load_training

FRAME = pd.DataFrame(np.random.default_rng(0).normal(size=(40, 3)), columns=list("abc"))


def read(tmp_path, name, **fields):
    """The whole of the set in this file."""
    return load_training(Arrays(path=name, validation=0, test_fraction=0, **fields), tmp_path)


INDEXED = {
    "default.csv": FRAME.to_csv,
    "filtered.csv": FRAME[FRAME.a > -0.5].to_csv,
    "shuffled.csv": lambda path: FRAME.sample(frac=1, random_state=0).to_csv(path),
    "joined.csv": lambda path: pd.concat([FRAME, FRAME]).to_csv(path),
    "twice.csv": lambda path: FRAME.to_csv(path) or pd.read_csv(path).to_csv(path),
    "copied.csv": lambda path: FRAME.to_csv(path) or pd.read_csv(path).to_csv(path, index=False),
    "reset.csv": lambda path: FRAME.reset_index().to_csv(path, index=False),
    "filtered.parquet": FRAME[FRAME.a > -0.5].to_parquet,
    "named.parquet": lambda path: FRAME.rename_axis("row").sample(frac=1, random_state=0).to_parquet(path),
    "levels.parquet": lambda path: FRAME.set_index([np.arange(40), np.arange(40) % 2]).to_parquet(path),
    "stripped.parquet": lambda path: parquet.write_table(
        pa.Table.from_pandas(FRAME[FRAME.a > -0.5]).replace_schema_metadata(None), path
    ),
}


@pytest.mark.parametrize("name", INDEXED)
def test_the_index_of_a_frame_is_left_out_by_name(tmp_path, name):
    """Three columns are three dimensions, whatever index pandas wrote beside them, and a note says what is left out."""
    INDEXED[name](tmp_path / name)
    data = read(tmp_path, name)
    assert data.shape == (1, 1, 3)
    assert np.isin(data.train.images.flatten(1).numpy(), FRAME.to_numpy().astype(np.float32)).all()
    assert data.notes
    assert all("is left out" in note and name in note for note in data.notes)


@pytest.mark.parametrize("name", ["default.csv", "filtered.parquet"])
def test_the_index_of_an_earlier_record_stays_a_dimension(tmp_path, name):
    """``reading`` 1 is how version 0.1.0 took it: four dimensions, so that earlier records reproduce."""
    INDEXED[name](tmp_path / name)
    assert read(tmp_path, name, reading=1).shape == (1, 1, 4)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("plain.parquet", FRAME.to_parquet),
        ("plain.csv", lambda path: FRAME.to_csv(path, index=False)),
        ("index.csv", lambda path: FRAME.rename(columns={"a": "index"}).to_csv(path, index=False)),
        ("unnamed.csv", lambda path: FRAME.rename(columns={"a": ""}).to_csv(path, index=False)),
    ],
)
def test_columns_that_are_no_index_are_values(tmp_path, name, write):
    """A range of rows in the metadata is no column, and real values are no index whatever they are called."""
    write(tmp_path / name)
    data = read(tmp_path, name)
    assert (data.shape, data.notes) == ((1, 1, 3), ())


def test_the_columns_of_an_array_written_by_pandas_are_its_numbers(tmp_path):
    """A frame without column names has a header of numbers, which an index shows to be one."""
    pd.DataFrame(FRAME.to_numpy()).to_csv(tmp_path / "a.csv")
    assert read(tmp_path, "a.csv").shape == (1, 1, 3)


def test_an_index_in_one_of_two_files_does_not_make_them_differ(tmp_path):
    """The columns that are compared are those of the values."""
    FRAME.to_csv(tmp_path / "a.csv")
    FRAME.to_csv(tmp_path / "b.csv", index=False)
    config = Arrays(path="a.csv", test_path="b.csv", validation=0)
    assert load_training(config, tmp_path).shape == load_test(config, tmp_path).shape == (1, 1, 3)


def test_an_index_that_is_named_as_the_label_is_the_label(tmp_path):
    """What the config names is what it says."""
    frame = FRAME.set_index(pd.Index(np.arange(40) % 2, name="kind"))
    frame.to_parquet(tmp_path / "a.parquet")
    data = read(tmp_path, "a.parquet", labels="kind")
    assert (data.shape, data.num_classes, data.notes) == ((1, 1, 3), 2, ())


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a;b\n1;2\n3;4\n", r"this file seems to be separated by ';'"),
        ("a;b\n1,5;2\n3,5;4\n", r"this file seems to be separated by ';'"),
        ("a;b\n1,5;2,5\n3,5;4,5\n", r"this file seems to be separated by ';'"),
        ("\ufeffa;b\n1;2\n", r"this file seems to be separated by ';'"),
        ("a\tb\n1\t2\n", r"this file seems to be separated by tabs"),
        ("a|b\n1|2\n", r"this file seems to be separated by '\|'"),
        ("a b\n1 2\n", r"this file seems to be separated by blanks"),
        ("a;y\n1;x\n", r"this file seems to be separated by ';'"),
        ("a,b\n", r"names 2 columns and has no rows"),
        ("a,b", r"it has one line, and a header and a row are needed"),
        ('a,b\n"1,5","2,5"\n', r"column 'a' holds numbers with a comma \('1,5'\)"),
        ("a,b,\n1,2,\n", r"column 3, which has no name, is empty"),
        ("a,b\n1,\n2,\n", r"column 'b' is empty"),
        ("", r"it is empty"),
    ],
    ids=str,
)
def test_a_table_in_another_dialect_is_refused_in_our_words(tmp_path, text, told):
    """Separators, decimals with commas, a header alone and empty columns: file, reason, remedy."""
    (tmp_path / "a.csv").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=told) as refusal:
        read(tmp_path, "a.csv")
    assert "a.csv" in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert "CSV parse" not in str(refusal.value)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (codecs.BOM_UTF16_LE + "a,b\n1,2\n".encode("utf-16-le"), r"it is UTF-16: save it as UTF-8"),
        (b"\x1f\x8b\x08\0", r"it is compressed with gzip: unpack it first"),
        (b"PK\x03\x04rest", r"it is a zip archive"),
    ],
    ids=["utf-16", "gzip", "excel"],
)
def test_a_csv_that_is_no_text_is_refused_by_what_it_is(tmp_path, content, told):
    """The message names what the file is."""
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(DataError, match=told):
        read(tmp_path, "a.csv")


@pytest.mark.parametrize(
    ("column", "told"),
    [
        (
            pa.array([decimal.Decimal("1.50")] * 4),
            r"column 'd' holds decimals of fixed precision \(decimal128\(3, 2\)\)",
        ),
        (pa.array([None] * 4), r"column 'd' is empty"),
        (pa.array(["x"] * 4), r"column 'd' holds string, not numbers"),
        (pa.array([[1]] * 4), r"column 'd' holds list"),
    ],
    ids=["decimal", "empty", "text", "lists"],
)
def test_a_column_of_parquet_that_holds_no_numbers_is_refused(tmp_path, column, told):
    """The column and what it holds are named."""
    parquet.write_table(pa.table({"a": [1.0] * 4, "d": column}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=told):
        read(tmp_path, "a.parquet")


@pytest.mark.parametrize(
    ("column", "told"),
    [
        (pa.array([decimal.Decimal("1.00")] * 4), r"column 'y' holds decimal128"),
        (pa.array([0, 1, 2, 3], pa.date32()), r"column 'y' holds date32"),
        (pa.array(["a", None, "b", "b"]), r"row 1 has no label in column 'y'"),
    ],
    ids=["decimal", "date", "null"],
)
def test_a_label_column_of_another_type_is_refused(tmp_path, column, told):
    """Labels are names or whole numbers."""
    parquet.write_table(pa.table({"a": [1.0] * 4, "y": column}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=told):
        read(tmp_path, "a.parquet", labels="y")


def test_no_rows_in_parquet_is_refused(tmp_path):
    """A frame without rows is named as such."""
    FRAME.iloc[:0].to_parquet(tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet names 3 columns and has no rows"):
        read(tmp_path, "a.parquet")


def test_a_categorical_label_is_read_by_its_categories(tmp_path):
    """A column of pandas' category type is what its values say."""
    frame = FRAME.assign(y=pd.Categorical(["b", "a"] * 20))
    frame.to_parquet(tmp_path / "a.parquet")
    data = read(tmp_path, "a.parquet", labels="y")
    assert data.label_names == ("a", "b")
    assert data.train.labels.tolist() == [1, 0] * 20


@pytest.mark.parametrize(
    ("name", "content", "shape"),
    [
        ("one.csv", b"a\n1\n2\n", (1, 1, 1)),
        ("bom.csv", "\ufeffa,b\n1,2\n3,4\n".encode(), (1, 1, 2)),
        ("crlf.csv", b"a,b\r\n1,2\r\n3,4\r\n", (1, 1, 2)),
        ("quoted.csv", b'"a","b"\n"1","2"\n"3","4"\n', (1, 1, 2)),
        ("semicolon.csv", b'"a;b",c\n1,2\n3,4\n', (1, 1, 2)),
        ("blanks.csv", b"a b,c d\n1,2\n3,4\n", (1, 1, 2)),
        ("constant.csv", b"a,b\n1,2\n1,2\n", (1, 1, 2)),
        ("UPPER.CSV", b"a,b\n1,2\n3,4\n", (1, 1, 2)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_odd_files_that_are_right_are_read(tmp_path, name, content, shape):
    """One column, a byte order mark, CRLF, quotes, a constant, capitals in the ending."""
    (tmp_path / name).write_bytes(content)
    data = read(tmp_path, name)
    assert data.shape == shape
    assert data.notes == ()


def test_a_compressed_file_is_refused_with_the_remedy(tmp_path):
    """The ending says that it has to be unpacked."""
    (tmp_path / "a.csv.gz").write_bytes(b"\x1f\x8b")
    with pytest.raises(DataError, match=r"got '\.gz': unpack it first"):
        read(tmp_path, "a.csv.gz")

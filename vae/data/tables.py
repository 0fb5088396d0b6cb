"""Tables with named columns, CSV and Parquet, and the recognition of columns that are no values."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vae.data.dataset import Array, DataError
from vae.durable import DATA, check_file, open_file

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa


_DOUBLE = 8  # bytes
_SEPARATORS = {";": "';'", "\t": "tabs", "|": "'|'", " ": "blanks"}
_COMMA_DECIMAL = re.compile(r"\s*[-+]?\d[\d.]*,\d+\s*")
_PANDAS_COPY = re.compile(r"Unnamed: \d+(\.\d+)*")  # pandas' name for an index that it wrote and read again
_PANDAS_LEVEL = re.compile(r"__index_level_\d+__")
_RESET = {"index", "level_0"}  # the names of reset_index() for the row numbers
# The first bytes of files that are not text, and their kind.
_NO_TEXT = {
    b"\xff\xfe": "UTF-16: save it as UTF-8",
    b"\xfe\xff": "UTF-16: save it as UTF-8",
    b"\x1f\x8b": "compressed with gzip: unpack it first",
    b"PK\x03\x04": "a zip archive, as Excel's files are: save it as CSV",
}


@dataclass(frozen=True)
class Table:
    """The columns of a file."""

    values: Array  # [N, D] float64; missing values are NaN
    labels: Array | None  # [N]
    columns: list[str]  # the names of the values, D
    left_out: tuple[str, ...] = ()  # one line for each column that is not used


def read_table(path: Path, labels: str | None, *, limit: int, reading: int) -> Table:
    """Read a CSV or Parquet file of at most ``limit`` bytes. ``labels`` is the name of the column of labels.

    The index that pandas writes into a table is left out. ``reading`` 1 is the rule of version 0.1.0, where the index is a
    column of values.

    Raises:
        DataError: The file is not a table of numbers.

    """
    table = _parsed(path, limit)
    names = table.column_names
    if path.suffix.lower() == ".csv" and len(names) == 1 and (separator := _other_separator(path)):
        raise _separated(path, separator)
    indices = _indices(table, labels, is_csv=path.suffix.lower() == ".csv") if reading > 1 else {}
    if path.suffix.lower() == ".csv" and not indices and all(map(_is_number, names)):
        raise DataError(f"{path}: the first line must name the columns, got {', '.join(names[:5])}")
    if labels is not None and names.count(labels) != 1:
        raise DataError(f"{path} has {names.count(labels)} columns {labels!r}: it has {', '.join(names)}")
    if table.num_rows == 0:
        raise DataError(f"{path} names {len(names)} columns and has no rows: there is nothing to train on")
    columns, found, kept = [], None, []
    for place, (name, column) in enumerate(zip(names, table.columns, strict=True)):
        if name == labels:
            found = _labels(path, name, column)
        elif place not in indices:
            columns.append(_numbers(path, name, place, column))
            kept.append(name)
    if not columns:
        raise DataError(f"{path} has no column of values: it has {', '.join(names) or 'none'}")
    return Table(np.stack(columns, axis=1), found, kept, tuple(f"{path.name}: {why}" for why in indices.values()))


def _parsed(path: Path, limit: int) -> pa.Table:
    # Only tables need it.
    import pyarrow as pa  # noqa: PLC0415
    from pyarrow import csv, parquet  # noqa: PLC0415

    try:
        if path.suffix.lower() == ".parquet":
            check_file(path)
            facts = parquet.read_metadata(path)
            if (size := facts.num_rows * facts.num_columns * _DOUBLE) > limit:
                raise DataError(
                    f"{path}: {facts.num_rows:,} rows of {facts.num_columns:,} columns take {size:,} bytes, and a table is read "
                    f"whole, up to {limit:,}: save it as an .npy, which stays on disk"
                )
            return parquet.read_table(path)
        with open_file(path, DATA) as file:
            start = file.read(4)
        for magic, what in _NO_TEXT.items():
            if start.startswith(magic):
                raise DataError(f"{path} can't be read: it is {what}")
        return csv.read_csv(path)
    except pa.ArrowException as error:
        if path.suffix.lower() == ".csv" and (separator := _other_separator(path)):
            raise _separated(path, separator) from None
        if path.suffix.lower() == ".csv" and len(lines := _first_lines(path)) < 2:  # noqa: PLR2004 - a header and a row
            what = "it is empty" if not lines else "it has one line, and a header and a row are needed"
            raise DataError(f"{path} can't be read: {what}") from None
        raise DataError(f"{path} can't be read: {' '.join(str(error).split())}") from None


def _first_lines(path: Path) -> list[str]:
    """Return the first two lines of the first 64 KiB that are not empty."""
    with open_file(path, DATA) as file:
        text = file.read(1 << 16).decode("utf-8-sig", errors="replace")
    return [line for line in text.splitlines() if line.strip()][:2]


def _other_separator(path: Path) -> str | None:
    """Return the separator of the columns if the first two lines show that it is not a comma, else None."""
    lines = _first_lines(path)
    for separator in _SEPARATORS:
        counts = {line.strip(" ").count(separator) for line in lines}
        # Blanks count as separators only if there is no comma, because a name can have blanks.
        if len(counts) == 1 and counts != {0} and not (separator == " " and "," in lines[0]):
            return separator
    return None


def _separated(path: Path, separator: str) -> DataError:
    return DataError(
        f"{path}: this file seems to be separated by {_SEPARATORS[separator]}; write it with commas, and decimals with a "
        f"point: pandas.read_csv(..., sep={separator!r}).to_csv(..., index=False), with decimal=',' where it needs it"
    )


def _indices(table: pa.Table, labels: str | None, *, is_csv: bool) -> dict[int, str]:
    """Return a line for each column that is an index, by its position."""
    import pyarrow as pa  # noqa: PLC0415 - only tables need it

    names = table.column_names
    metadata = (table.schema.metadata or {}).get(b"pandas")
    declared = _declared(metadata)
    found = {}
    leading = is_csv
    for place, name in enumerate(names):
        if name == labels:
            continue
        column = table.column(place)
        whole = pa.types.is_integer(column.type)
        leading = leading and name == "" and whole
        if leading:
            found[place] = f"column {place + 1}, whole numbers without a name, is left out: pandas writes its index so"
        elif (whole and _PANDAS_COPY.fullmatch(name)) or (not is_csv and _PANDAS_LEVEL.fullmatch(name)):
            found[place] = f"column {name!r} is left out: pandas writes its index so"
        elif name in declared:
            found[place] = f"column {name!r} is left out: it is the index of the pandas frame that was written"
        elif name in _RESET and whole and not column.null_count and _counts(column.to_numpy()):
            found[place] = f"column {name!r} is left out: it counts the rows"
    return found


def _declared(metadata: bytes | None) -> set[str]:
    """Return the columns that are the index by pandas' own metadata. A range of rows is not a column."""
    try:
        entries = json.loads(metadata or b"{}").get("index_columns", [])
        return {entry for entry in entries if isinstance(entry, str)}
    except (ValueError, AttributeError, TypeError, RecursionError):
        return set()


def _counts(values: Array) -> bool:
    return bool(np.array_equal(values, np.arange(len(values)))) and len(values) > 1


def _labels(path: Path, name: str, column: pa.ChunkedArray) -> Array:
    import pyarrow as pa  # noqa: PLC0415 - only tables need it

    if pa.types.is_dictionary(column.type):  # a categorical of pandas
        column = pa.chunked_array([chunk.dictionary_decode() for chunk in column.chunks])
    if column.null_count:
        row = next(i for i, value in enumerate(column) if not value.is_valid)
        raise DataError(f"{path}: row {row} has no label in column {name!r}; fill or remove it")
    kind = column.type
    is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
    is_text = any(check(kind) for check in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view))
    if not (is_number or is_text or pa.types.is_binary(kind)):
        raise DataError(f"{path}: labels must be names or whole numbers, and column {name!r} holds {kind}")
    array: Array = column.to_numpy()
    return array


def _numbers(path: Path, name: str, place: int, column: pa.ChunkedArray) -> Array:
    import pyarrow as pa  # noqa: PLC0415 - only tables need it

    kind = column.type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind):
        values: Array = column.to_numpy().astype(np.float64)  # missing values are NaN there
        return values
    called = repr(name) if name else f"{place + 1}, which has no name,"
    if pa.types.is_null(kind):
        raise DataError(f"{path}: column {called} is empty; remove it")
    if pa.types.is_decimal(kind):
        raise DataError(
            f"{path}: column {called} holds decimals of fixed precision ({kind}); store it as floating point, e.g. "
            "df[...].astype(float)"
        )
    example = next((str(value) for value in column if value.is_valid), "")
    if pa.types.is_string(kind) and _COMMA_DECIMAL.fullmatch(example):
        raise DataError(
            f"{path}: column {called} holds numbers with a comma ({example[:40]!r}); write decimals with a point and no "
            "separators of thousands: pandas.read_csv(..., decimal=',')"
        )
    raise DataError(f"{path}: column {called} holds {kind}, not numbers; drop it, or name it in data.labels")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True

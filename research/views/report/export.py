"""A report's figures as files (JSON, CSV, Parquet), with every digit of the ledger."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from research.errors import UserError
from research.text import csv_cell, json_text
from research.views.results import Sweep
from vae.durable import replacing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from research.ledger.log import Ledger


def tables(ledgers: Sequence[Ledger]) -> dict[str, pd.DataFrame]:
    """Return the tables trials, rows, front and importances, each with the sweep in its first columns."""
    sweeps = [Sweep(ledger) for ledger in ledgers]
    made: dict[str, Callable[[Sweep], pd.DataFrame]] = {
        "trials": lambda sweep: sweep.trials(),
        "rows": lambda sweep: sweep.rows(),
        "front": lambda sweep: sweep.front(),
        "importances": lambda sweep: (
            sweep.importances().reset_index().melt("parameter", var_name="objective", value_name="importance")
        ),
    }
    found = {name: [_named(make(sweep), sweep) for sweep in sweeps] for name, make in made.items()}
    # Empty tables are not joined, because their columns have no types.
    whole = {name: [one for one in parts if len(one)] or parts[:1] for name, parts in found.items()}
    return {name: pd.concat(parts, ignore_index=True) for name, parts in whole.items()}


def write_csv(ledgers: Sequence[Ledger], out: Path) -> list[Path]:
    """Write the trials to ``out.csv``; or, if ``out`` is a folder, write a file for each table that is not empty."""
    return _write(
        ledgers,
        out,
        ".csv",
        lambda table, path: _without_formulas(table).to_csv(path, index=False, lineterminator="\n"),
    )


def write_parquet(ledgers: Sequence[Ledger], out: Path) -> list[Path]:
    """Write the tables as Parquet. A column of several types, which Parquet does not have, is JSON text."""
    return _write(ledgers, out, ".parquet", lambda table, path: _of_one_type(table).to_parquet(path, index=False))


def write_text(text: str, out: Path) -> None:
    """Write a file whole or not at all.

    Raises ``UserError`` if it can't be written.
    """
    _placed(out, lambda path: path.write_text(text, encoding="utf-8"))


def _write(
    ledgers: Sequence[Ledger], out: Path, suffix: str, write: Callable[[pd.DataFrame, Path], object]
) -> list[Path]:
    found = tables(ledgers)
    if out.suffix == suffix:
        chosen = {out: found["trials"]}
    else:
        if out.suffix in {".csv", ".parquet", ".json", ".html"} or out.is_file():
            raise UserError(f"{out} must be a folder, or a file that ends in {suffix}")
        chosen = {out / f"{name}{suffix}": table for name, table in found.items() if len(table) or name == "trials"}
    for path, table in chosen.items():
        _placed(path, lambda temporary, table=table: write(table, temporary))  # type: ignore[misc]
    return list(chosen)


def _placed(out: Path, write: Callable[[Path], object]) -> None:
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with replacing(out, sync=False) as temporary:
            write(temporary)
    except OSError as error:
        raise UserError(f"{out} can't be written ({error.strerror}): choose another place") from error


def _named(table: pd.DataFrame, sweep: Sweep) -> pd.DataFrame:
    table = table.copy()
    table.insert(0, "sweep", sweep.name)
    table.insert(1, "directory", str(sweep.ledger.directory))
    return table


def _without_formulas(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table for a spreadsheet: no name and no text in it is a formula."""
    table = table.rename(columns=csv_cell)
    for place, kind in enumerate(table.dtypes):
        if not pd.api.types.is_numeric_dtype(kind):
            table.isetitem(place, table.iloc[:, place].map(csv_cell))
    return table


def _of_one_type(table: pd.DataFrame) -> pd.DataFrame:
    table = table.copy()
    for name in table.columns:
        if table[name].dtype == object:
            kinds = {type(value) for value in table[name] if value is not None and value == value}  # noqa: PLR0124 - NaN
            if kinds - {str}:
                table[name] = pd.Series(
                    [None if pd.isna(value) else json_text(value, indent=None) for value in table[name]], dtype="object"
                )
    return table

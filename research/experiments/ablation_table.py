"""An ablation's figures: means over seeds, paired differences from the full config, as Markdown, LaTeX or CSV."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pandas as pd

from research.experiments.variants import FULL
from research.intervals import Paired, paired_interval, standard_error
from research.text import csv_cell, markdown_code, markdown_text, visible

if TYPE_CHECKING:
    from collections.abc import Sequence

    from research.experiments.ablation import Ablation, RunResult


@dataclass(frozen=True)
class Mean:
    """Over ``count`` runs; ``error`` is the standard error, None of fewer than two."""

    value: float
    error: float | None
    count: int


@dataclass(frozen=True)
class Row:
    """One variant. ``figures`` by metric, where any run has it."""

    label: str
    figures: dict[str, Mean]
    difference: Paired | None  # row minus full config, over the seeds that both have
    incomparable: str | None
    failed: dict[int, str] = field(default_factory=dict)  # by seed: why


def mean_of(values: Sequence[float]) -> Mean:
    """Mean and standard error."""
    return Mean(statistics.fmean(values), standard_error(values), len(values))


def paired_difference(own: Sequence[float | None], full: Sequence[float | None]) -> Paired | None:
    """Return the paired difference of two rows of figures by seed; None if no seed has both."""
    differences = [a - b for a, b in zip(own, full, strict=True) if a is not None and b is not None]
    return paired_interval(differences) if differences else None


def columns(ablation: Ablation) -> list[str]:
    """The ranking metric and the two terms of the bound."""
    return list(dict.fromkeys((ablation.metric.name, "val/reconstruction", "val/kl")))


def summarise(ablation: Ablation, results: Sequence[Sequence[RunResult]]) -> list[Row]:
    """The rows of the table, the full config first."""
    name = ablation.metric.name
    full = [_figure(result, name) for result in results[0]]
    rows = []
    for variant, runs in zip(ablation.variants, results, strict=True):
        figures = {}
        for column in columns(ablation):
            values = [value for run in runs if (value := _figure(run, column)) is not None]
            if values:
                figures[column] = mean_of(values)
        compared = variant.label != FULL and variant.incomparable is None
        difference = paired_difference([_figure(run, name) for run in runs], full) if compared else None
        failed = {seed: run.failed for seed, run in zip(ablation.seeds, runs, strict=True) if run.failed is not None}
        rows.append(Row(variant.label, figures, difference, variant.incomparable, failed))
    return rows


def _figure(result: RunResult, name: str) -> float | None:
    value = None if result.row is None else result.row.get(name)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def caption(ablation: Ablation) -> list[str]:
    """Return the caption of the table."""
    config = ablation.variants[0].config
    sense = "higher" if ablation.metric.direction == "maximize" else "lower"
    count = len(ablation.seeds)
    return [
        (
            f"Mean ± standard error over {count} seed{'s' if count > 1 else ''}, {config.epochs} epochs, validation split, "
            f"at each run's best epoch by {ablation.metric.name} ({sense} is better); nats per example."
        ),
        "Δ: row minus full config, paired by seed, with the 95 % interval of Student's t for each row by itself.",
        f"Measure: {visible(ablation.measure)}",
    ]


def notes(rows: Sequence[Row]) -> list[str]:
    """Return the notes on rows that failed or do not compare."""
    told = [f"{row.label}: not comparable: {row.incomparable}" for row in rows if row.incomparable]
    told += [f"{row.label}, seed {seed}: failed: {why}" for row in rows for seed, why in row.failed.items()]
    return [visible(line) for line in told]


def as_markdown(ablation: Ablation, rows: Sequence[Row]) -> str:
    """A table with its caption, and notes below it."""
    names = columns(ablation)
    lines = [*caption(ablation)[:-1], f"Measure: {markdown_code(ablation.measure)}", ""]
    heads = [*map(markdown_text, ["change", *names]), f"Δ {markdown_text(ablation.metric.name)} [95 %]", "runs"]
    lines.append("| " + " | ".join(heads) + " |")
    lines.append("|---|" + "---:|" * (len(names) + 2))
    for row in rows:
        cells = [markdown_code(row.label, in_table=True) if row.label != FULL else FULL]
        cells += [_mean(row.figures.get(name)) for name in names]
        cells += [_difference(row), _runs(ablation, row)]
        lines.append("| " + " | ".join(cells) + " |")
    below = notes(rows)
    return "\n".join([*lines, *(["", *[f"- {markdown_text(line)}" for line in below]] if below else [])]) + "\n"


def as_latex(ablation: Ablation, rows: Sequence[Row]) -> str:
    """Return a booktabs tabular, with the caption and the notes as comments above and below it."""
    names = columns(ablation)
    heads = [*map(escape, ["change", *names]), f"$\\Delta$ {escape(ablation.metric.name)} [95\\,\\%]", "runs"]
    cells = [
        [
            escape(row.label) if row.label == FULL else f"\\texttt{{{escape(row.label)}}}",
            *map(_in_math, [*(_mean(row.figures.get(name)) for name in names), _difference(row), _runs(ablation, row)]),
        ]
        for row in rows
    ]
    table = pd.DataFrame(cells, columns=heads)
    lines = table.to_latex(index=False, escape=False, column_format="l" + "r" * (len(heads) - 1)).splitlines()
    # A rule sets the full config, which is the first row, apart from its variants.
    lines.insert(lines.index("\\midrule") + 2, "\\midrule")
    above = [*caption(ablation), "\\usepackage{booktabs}"]
    return "\n".join([*(f"% {line}" for line in above), *lines, *(f"% {line}" for line in notes(rows))]) + "\n"


def as_csv(ablation: Ablation, rows: Sequence[Row]) -> str:
    """Return a line for each row, with every digit; a cell without a figure is empty."""
    found = []
    for row in rows:
        cells: dict[str, object] = {"change": csv_cell(row.label)}
        for name in columns(ablation):
            mean = row.figures.get(name)
            cells |= {
                name: None if mean is None else mean.value,
                f"{name}_standard_error": None if mean is None else mean.error,
                f"{name}_runs": 0 if mean is None else mean.count,
            }
        own = row.difference
        cells |= {
            "difference": None if own is None else own.mean,
            "difference_low": None if own is None else own.low,
            "difference_high": None if own is None else own.high,
            "difference_pairs": None if own is None else own.pairs,
            "not_comparable": csv_cell(row.incomparable),
            "failed": csv_cell("; ".join(f"seed {seed}: {why}" for seed, why in row.failed.items())),
            "metric": csv_cell(ablation.metric.name),
            "measure": csv_cell(ablation.measure),
        }
        found.append(cells)
    return str(pd.DataFrame(found, dtype=object).to_csv(index=False, lineterminator="\n"))


FORMATS = {"markdown": as_markdown, "latex": as_latex, "csv": as_csv}

_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "^": r"\textasciicircum{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}


def escape(text: str) -> str:
    """``text`` as LaTeX prints it."""
    return "".join(_LATEX.get(character, character) for character in visible(text))


def _in_math(cell: str) -> str:
    """Figures with a true minus; words and dashes as they are."""
    if not any(character.isdigit() for character in cell) or "/" in cell:
        return escape(cell)
    return f"${cell.replace('±', chr(92) + 'pm')}$"


def _mean(mean: Mean | None) -> str:
    if mean is None:
        return "-"
    return f"{mean.value:.2f}" + ("" if mean.error is None else f" ± {mean.error:.2f}")


def _difference(row: Row) -> str:
    if row.incomparable is not None:
        return "not comparable"
    own = row.difference
    if own is None:
        return "-"
    return f"{own.mean:+.2f}" + ("" if own.low is None else f" [{own.low:+.2f}, {own.high:+.2f}]")


def _runs(ablation: Ablation, row: Row) -> str:
    done = len(ablation.seeds) - len(row.failed)
    return str(done) if not row.failed else f"{done}/{len(ablation.seeds)}"

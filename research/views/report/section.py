"""A section of the page, and the context that all sections are drawn from."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from itertools import count
from typing import TYPE_CHECKING, Any

from research.views.report.elements import note
from research.views.report.facts import place
from research.views.report.optuna_charts import OptunaCharts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from research.ledger.log import Ledger
    from research.views.report.charts import Chart


@dataclass(frozen=True)
class Section:
    """A part of the page under a heading; ``anchor`` is its place in the table of contents."""

    anchor: str
    title: str
    html: str


@dataclass
class Context:
    """One sweep: its ledger, every figure of it, and Optuna's plots."""

    ledger: Ledger
    facts: dict[str, Any]
    _numbers: Iterator[int] = field(default_factory=lambda: count(1))

    @cached_property
    def optuna(self) -> OptunaCharts:
        """The study and its plots, made when the first is asked for."""
        return OptunaCharts(self.ledger)

    @property
    def place(self) -> str:
        return place(self.ledger)

    @property
    def metric(self) -> str:
        return str(self.facts["metric"]["name"])

    def states(self, *names: str) -> int:
        """Return the number of trials in these states."""
        return sum(self.facts["states"][name] for name in names)

    def chart(self, chart: Chart) -> str:
        """The chart's HTML, under a name that the page has once."""
        return chart.html(f"chart-{next(self._numbers)}")

    def drawn(self, make: Callable[[], Iterable[tuple[str, Chart]]]) -> str:
        """Charts by objective, each under its name where there are several.

        Optuna's plots meet spaces that nobody drew before. One that fails costs its place, not the page, and says so.
        """
        try:
            charts = list(make())
        except Exception as error:  # noqa: BLE001 - whatever Optuna or plotly raise, the figures are in the tables
            return note(f"Optuna can't draw this ({type(error).__name__}: {error}).")
        several = len(charts) > 1
        return "".join((f"<h3>{name}</h3>" if several else "") + self.chart(chart) for name, chart in charts)

"""A section of the page, and the context that all sections are drawn from."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from itertools import count
from typing import TYPE_CHECKING, Any

from research.views.report.elements import Block, Heading, Note, Plot
from research.views.report.facts import place
from research.views.report.optuna_charts import OptunaCharts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from research.ledger.log import Ledger
    from research.views.report.charts import Chart


@dataclass(frozen=True)
class Section:
    """A part of the page under a heading; ``anchor`` is its address in the table of contents."""

    anchor: str
    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Group:
    """Sections that stand together. ``name`` is the sweep's in a page on several sweeps, else empty."""

    name: str
    sections: Sequence[Section]


@dataclass
class Context:
    """One sweep: its ledger, every figure of it, and Optuna's plots."""

    ledger: Ledger
    facts: dict[str, Any]
    _numbers: Iterator[int] = field(default_factory=lambda: count(1))

    @cached_property
    def optuna(self) -> OptunaCharts:
        """The study and its plots, made when the first of them is needed."""
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

    def chart(self, chart: Chart) -> Plot:
        """Return the chart's block, under a name that occurs only once in the page."""
        return chart.plot(f"chart-{next(self._numbers)}")

    def drawn(self, make: Callable[[], Iterable[tuple[str, Chart]]]) -> list[Block]:
        """Return the charts of each objective, under the objectives' names if there are several.

        Optuna's plots may meet any space. If one of them fails, a note takes its place and the page is still drawn.
        """
        try:
            charts = list(make())
        except Exception as error:  # noqa: BLE001 - whatever Optuna or plotly raise, the figures are in the tables
            return [Note(f"Optuna can't draw this ({type(error).__name__}: {error}).")]
        blocks: list[Block] = []
        for name, chart in charts:
            if len(charts) > 1:
                blocks.append(Heading(name))
            blocks.append(self.chart(chart))
        return blocks

"""The standing of a ledger's trials, updated event by event: running and ended trials, the ranking, and spending.

All of it could be computed from the list of trials. The driver needs it at every draw, row and end, so that the cost of
a trial would grow with the number of trials.
"""

from __future__ import annotations

from bisect import insort
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from research.ledger.events import RowReported
    from research.ledger.trial_view import Status, TrialView

# The sort key of single-objective sweeps: True if a constraint is violated, the metric (lower is better), the number.
Merit = tuple[bool, float, int]


@dataclass
class Standing:
    """Counts and orders over a ledger's trials. Trials appear here by number."""

    running: dict[int, TrialView] = field(default_factory=dict)
    states: Counter[Status] = field(default_factory=Counter)  # of ended trials
    places: dict[int, int] = field(
        default_factory=dict
    )  # the order of ended trials without skipped draws: 0 ended first
    ranking: list[Merit] = field(default_factory=list)  # of ended trials with a value, sorted
    points: dict[int, tuple[float, ...]] = field(default_factory=dict)  # of complete, feasible trials, for the front
    seconds: float = 0.0  # of training and evaluation
    rows: list[RowReported] = field(default_factory=list)  # in the order of their reports

    @property
    def epochs(self) -> int:
        """The number of epochs that have been trained."""
        return len(self.rows)

    def begin(self, view: TrialView) -> None:
        """Add a trial that was created."""
        self.running[view.number] = view

    def row(self, row: RowReported, seconds: float) -> None:
        """Add a row of a trial, which took ``seconds`` to train and evaluate."""
        self.rows.append(row)
        self.seconds += seconds

    def end(self, view: TrialView, merit: Merit | None, point: tuple[float, ...] | None) -> None:
        """Add a trial that has ended. Nothing about it changes after this."""
        del self.running[view.number]
        self.states[view.status] += 1
        if view.status != "SKIPPED":
            self.places[view.number] = len(self.places)
        if merit is not None:
            insort(self.ranking, merit)
        if point is not None:
            self.points[view.number] = point

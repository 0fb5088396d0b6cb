"""The standing of a ledger's trials, updated event by event: running and ended trials, the ranking, and spending.

Everything here also follows from the trials themselves, by looking at all of them. A driver asks at every draw, row
and end, so that would cost more for each trial the more trials there are.
"""

from __future__ import annotations

from bisect import insort
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from research.ledger.events import RowReported
    from research.ledger.trial_view import Status, TrialView

# What single objectives are ranked by: whether it misses a constraint, the metric (lower is better), the number.
Merit = tuple[bool, float, int]


@dataclass
class Standing:
    """Counts and orders over a ledger's trials. Trials appear here by number."""

    running: dict[int, TrialView] = field(default_factory=dict)
    states: Counter[Status] = field(default_factory=Counter)  # of those that have ended
    places: dict[int, int] = field(default_factory=dict)  # of those that ended, but for skipped draws: 0 was the first
    ranking: list[Merit] = field(default_factory=list)  # sorted; of ended trials with a value
    points: dict[int, tuple[float, ...]] = field(default_factory=dict)  # of complete, feasible ones, for a front
    seconds: float = 0.0  # training and evaluating
    rows: list[RowReported] = field(default_factory=list)  # in the order in which they were reported

    @property
    def epochs(self) -> int:
        """The number of epochs that have been trained."""
        return len(self.rows)

    def begin(self, view: TrialView) -> None:
        """A trial was created."""
        self.running[view.number] = view

    def row(self, row: RowReported, seconds: float) -> None:
        """A trial's row was taken in, which took ``seconds`` to train and evaluate."""
        self.rows.append(row)
        self.seconds += seconds

    def end(self, view: TrialView, merit: Merit | None, point: tuple[float, ...] | None) -> None:
        """A trial ended; nothing about it changes from here on."""
        del self.running[view.number]
        self.states[view.status] += 1
        if view.status != "SKIPPED":
            self.places[view.number] = len(self.places)
        if merit is not None:
            insort(self.ranking, merit)
        if point is not None:
            self.points[view.number] = point

"""The values of all trials at each rung, updated as rows come in, so that a decision reads one array and not all trials."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np

from research.ledger.settings import Hyperband, rungs

if TYPE_CHECKING:
    from collections.abc import Callable

    from research.ledger.log import Ledger
    from research.ledger.settings import Metric, Scheduler
    from research.ledger.trial_view import TrialView


class RungTable:
    """For each rung, ``value_at`` of every trial by its number; NaN for trials that have not reached it."""

    def __init__(self, ledger: Ledger, value_at: Callable[[TrialView, Metric, int], float | None]) -> None:
        """``value_at(trial, metric, epoch)``: a number once the trial has that epoch's row; later rows don't change it."""
        self.ledger = ledger
        self.value_at = value_at
        self._values: defaultdict[int, np.ndarray] = defaultdict(lambda: np.full(64, np.nan))
        self._brackets: defaultdict[int, list[int]] = defaultdict(list)  # by a trial's epochs: of each number
        self._read = 0  # how many of the ledger's rows are in

    def others(self, view: TrialView, rung: int, *, below: int, epochs: int) -> np.ndarray:
        """The values at ``rung`` of the trials numbered less than ``below``, without ``view``'s own.

        Of HyperBand only those of ``view``'s bracket, which depends on a trial's ``epochs``.
        """
        self._catch_up()
        values = self._values[rung][:below]
        counted = ~np.isnan(values)
        counted[view.number : view.number + 1] = False
        scheduler = self.ledger.settings.scheduler
        if isinstance(scheduler, Hyperband):
            brackets = self._brackets[epochs]
            brackets += (scheduler.bracket(epochs, n) for n in range(len(brackets), len(self.ledger.trials)))
            mine = np.array(brackets[: len(values)]) == scheduler.bracket(epochs, view.number)
            counted[: len(mine)] &= mine
        chosen: np.ndarray = values[counted]
        return chosen

    def _catch_up(self) -> None:
        scheduler, metric = self.ledger.settings.scheduler, self.ledger.settings.metric
        rows = self.ledger.standing.rows
        while self._read < len(rows):
            row = rows[self._read]
            self._read += 1
            if not _is_rung(scheduler, row.epoch) or self.ledger.trials[row.trial].incomparable:
                continue
            value = self.value_at(self.ledger.trials[row.trial], metric, row.epoch)
            if value is None:
                continue
            values = self._values[row.epoch]
            if row.trial >= len(values):
                values = np.concatenate([values, np.full(row.trial + 1, np.nan)])  # at least twice as long
                self._values[row.epoch] = values
            values[row.trial] = value


def _is_rung(scheduler: Scheduler, epoch: int) -> bool:
    """Return True if ``epoch`` is a rung of some trial with more epochs than that."""
    return epoch in rungs(scheduler, epoch + 1)

"""The settings that are in force in a sweep, and the facts that all of its rows must share."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from research.ledger.comparison import facts_of_recorded, why_not

if TYPE_CHECKING:
    from research.ledger.events import Facts, RowReported, SweepExtended, TrialCreated
    from research.ledger.settings import SweepSettings


class InForce:
    """The settings of a sweep's creation, with all extensions so far."""

    def __init__(self, settings: SweepSettings) -> None:
        """Start from the ``settings`` of the sweep's first event."""
        self.settings = settings
        self._shared: Facts = settings.comparison

    @property
    def comparison(self) -> Facts:
        """The facts that all rows of the sweep share (research.ledger.comparison)."""
        return self._shared or self.settings.shared

    def extend(self, event: SweepExtended) -> None:
        """Take over the number of trials, the budget and, if the event has one, the space."""
        space = self.settings.space if event.space is None else event.space
        self.settings = dataclasses.replace(self.settings, trials=event.trials, budget=event.budget, space=space)

    def why_incomparable(self, facts: Facts) -> str | None:
        """Return why rows with these facts may not be ranked with the sweep's; None if they may."""
        return why_not(self.settings.compared_by, facts, self.comparison)

    def why_row_incomparable(self, created: TrialCreated, row: RowReported) -> str | None:
        """Return why a row of the trial may not be ranked with the sweep's; None if it may.

        A sweep of an earlier version does not say which facts its rows share: those of its first row count.
        """
        facts = row.comparison or facts_of_recorded(created.config, row.metrics)
        if not self._shared:
            self._shared = {**facts, "measure": self.settings.measure}
        return self.why_incomparable(facts)

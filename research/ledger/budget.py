"""The budgets of a sweep besides its number of trials: limits, spending and remainder, computed from the ledger."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from research.errors import UserError

if TYPE_CHECKING:
    from research.ledger.log import Ledger
    from research.ledger.settings import Budget


@dataclass(frozen=True)
class Limit:
    """One limit of a budget."""

    option: str  # on the command line
    limit: float
    spent: float
    unit: str

    @property
    def reached(self) -> bool:
        return self.spent >= self.limit

    @property
    def left(self) -> float:
        return max(0.0, self.limit - self.spent)

    def __str__(self) -> str:
        return f"{self.spent:.4g} of {self.limit:g} {self.unit}, {self.left:.4g} left"


@dataclass(frozen=True)
class More:
    """An addition to a budget: ``+2`` on top of the present limit, or a new limit."""

    hours: str | None = None
    trial_hours: str | None = None
    total_epochs: str | None = None
    patience: str | None = None


def raised(budget: Budget, more: More) -> Budget:
    """Return ``budget`` extended by ``more``. A new limit is set; a present limit is never lowered.

    Raises:
        UserError: a text is not a number, or is below the present limit.

    """
    changes: dict[str, float | int] = {}
    for field in dataclasses.fields(More):
        text, now = getattr(more, field.name), getattr(budget, field.name)
        if text is None:
            continue
        option = "--" + field.name.replace("_", "-")
        whole = field.name in {"total_epochs", "patience"}
        try:
            number = (int if whole else float)(text.removeprefix("+"))
        except ValueError:
            number = 0
        total = number + (now or 0) if text.startswith("+") else number
        if not (math.isfinite(number) and number > 0) or total < (now or 0):
            told = "" if now is None else f", at least the present {now:g}"
            raise UserError(f"{option} must be +{'N' if whole else 'HOURS'} or a new limit{told}, got {text!r}")
        changes[field.name] = total
    return dataclasses.replace(budget, **changes)  # type: ignore[arg-type] # whole numbers where they must be


def limits(ledger: Ledger, now: datetime | None = None) -> list[Limit]:
    """Return the limits of the budget with the amounts spent. ``now`` is the end of a session that still runs."""
    budget = ledger.settings.budget
    found = []
    if budget.hours is not None:
        found.append(Limit("--hours", budget.hours, wall_seconds(ledger, now) / 3600, "hours"))
    if budget.trial_hours is not None:
        found.append(Limit("--trial-hours", budget.trial_hours, ledger.standing.seconds / 3600, "trial-hours"))
    if budget.total_epochs is not None:
        found.append(Limit("--total-epochs", budget.total_epochs, float(ledger.standing.epochs), "epochs"))
    if budget.patience is not None:
        found.append(Limit("--patience", budget.patience, float(since_best(ledger)), "trials since the best"))
    return found


def out_of_time(ledger: Ledger) -> str | None:
    """Return a message if the ``--hours`` budget is used up, else None. Called on every event, so it must stay cheap."""
    limit = ledger.settings.budget.hours
    if limit is None or (hours := wall_seconds(ledger, datetime.now(UTC)) / 3600) < limit:
        return None
    return f"--hours {limit:g} is spent ({hours:.4g} hours)"


def spent(ledger: Ledger) -> str | None:
    """Return a message about the first limit that is reached, else None."""
    reached = (limit for limit in limits(ledger, datetime.now(UTC)) if limit.reached)
    return next(
        (f"{limit.option} {limit.limit:g} is spent ({limit.spent:.4g} {limit.unit})" for limit in reached), None
    )


def wall_seconds(ledger: Ledger, now: datetime | None = None) -> float:
    """Return the seconds that drivers worked on the sweep in all sessions; ``now`` as for :func:`limits`."""
    spans = [(datetime.fromisoformat(start), datetime.fromisoformat(end)) for start, end in ledger.spans]
    if now is not None and spans:
        spans[-1] = spans[-1][0], now
    # If the clock was set back during a session, its duration must not become negative.
    return sum(max(0.0, (end - start).total_seconds()) for start, end in spans)


def since_best(ledger: Ledger) -> int:
    """Return how many trials have ended since the best one did; with several objectives, since the front last grew."""
    places = ledger.standing.places
    best = [view.number for view in ledger.front()] or [number for *_, number in ledger.standing.ranking[:1]]
    return len(places) - 1 - max(places[number] for number in best) if best else 0

"""Early stopping as pure decisions: from a trial's rows, the others' rows and the settings to one verdict.

The decisions follow ASHA (Li et al. 2020), HyperBand's brackets (Li et al. 2018) and the median rule (Golovin et al.
2017). Nothing here writes anything.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from research.ledger.settings import Asha, Hyperband, MedianRule, rungs
from research.search.rung_table import RungTable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from research.ledger.events import Decision
    from research.ledger.log import Ledger
    from research.ledger.settings import Metric
    from research.ledger.trial_view import TrialView


@dataclass(frozen=True)
class Verdict:
    """The decision on a trial after a row, its reason, and the rungs that the row settles."""

    decision: Decision
    reason: str | None = None
    judged: list[int] = field(default_factory=list)


class EarlyStopping:
    """Decides after each row whether its trial goes on."""

    def __init__(self, ledger: Ledger, visible_below: Callable[[int], int]) -> None:
        """``visible_below(n)``: trial n may be judged against the trials with a lower number than this."""
        self.ledger = ledger
        self.visible_below = visible_below
        median = isinstance(ledger.settings.scheduler, MedianRule)
        self.reached = RungTable(ledger, running_mean if median else value_at)

    def verdict(self, view: TrialView, value: float, epoch: int, epochs: int) -> Verdict:
        """Judge the row of ``epoch``, with the metric's ``value``, that the ledger does not hold yet.

        ``epochs`` is the full budget of the trial.
        """
        if epoch >= epochs:
            return Verdict("complete")
        scheduler = self.ledger.settings.scheduler
        match scheduler:
            case MedianRule() if epoch in rungs(scheduler, epochs):
                return self._by_median(scheduler, view, value, epoch, epochs)
            case Asha() | Hyperband():
                return self._by_rung(scheduler, view, value, epoch, epochs)
        return Verdict("continue")

    def next_decision(self, view: TrialView, epochs: int) -> int:
        """Return the next epoch after the trial's last row whose verdict may be another than ``continue``.

        That is the next rung, or the last epoch. While a rung waits for its judgement it is the next epoch.
        """
        scheduler = self.ledger.settings.scheduler
        last = max(view.rows, default=0)
        at = rungs(scheduler, epochs, view.number)
        if isinstance(scheduler, Asha | Hyperband) and any(_settled(view) < rung <= last for rung in at):
            return min(last + 1, epochs)
        return min((rung for rung in at if rung > last), default=epochs)

    def _by_median(self, rule: MedianRule, view: TrialView, value: float, epoch: int, epochs: int) -> Verdict:
        metric = self.ledger.settings.metric
        means = self.reached.others(view, epoch, below=self.visible_below(view.number), epochs=epochs)
        own = self._best_at(view, epoch, value, epoch)
        assert own is not None, "the row itself has a value"
        if not_below_median(rule, metric, own, means):
            return Verdict("continue", None, [epoch])
        reason = f"worse than the median of {len(means)} others' running means at epoch {epoch}"
        return Verdict("pruned", reason, [epoch])

    def _by_rung(self, halving: Asha | Hyperband, view: TrialView, value: float, epoch: int, epochs: int) -> Verdict:
        """Judge at the highest rung that the trial has reached, has not been judged at, and enough trials have reached.

        A trial that reaches a rung before enough others goes on. It is judged there later, at whatever epoch it has
        come to, by its value at the rung. Without this rule the first trials, one for each slot and drawn before
        anything is known, would all train for the full budget.
        """
        owed = [rung for rung in rungs(halving, epochs, view.number) if _settled(view) < rung <= epoch]
        if not owed:
            return Verdict("continue")
        metric, below = self.ledger.settings.metric, self.visible_below(view.number)
        where = f" of bracket {halving.bracket(epochs, view.number)}" if isinstance(halving, Hyperband) else ""
        for rung in reversed(owed):
            seen = self.reached.others(view, rung, below=below, epochs=epochs)
            if len(seen) + 1 < halving.min_population:
                continue
            own = self._best_at(view, rung, value, epoch)
            if own is None or keeps_going(halving, metric, own, seen):
                return Verdict("continue", None, [rung])
            late = "" if rung == epoch else f", judged at epoch {epoch}"
            reason = f"not in the best 1/{halving.reduction} of {len(seen) + 1}{where} at epoch {rung}{late}"
            return Verdict("pruned", reason, [rung])
        return Verdict("continue")

    def _best_at(self, view: TrialView, rung: int, value: float, epoch: int) -> float | None:
        """Return the trial's best value up to ``rung``; ``value`` belongs to ``epoch``, which has no row yet."""
        metric = self.ledger.settings.metric
        if rung < epoch:
            return value_at(view, metric, rung)
        before = value_at(view, metric, epoch - 1)
        return value if before is None or metric.better(value, before) else before


def _settled(view: TrialView) -> int:
    """Return the highest rung at which the trial was judged, or 0."""
    return max((rung for row in view.rows.values() for rung in row.judged), default=0)


def value_at(trial: TrialView, metric: Metric, epoch: int) -> float | None:
    """Return the best value of the trial's rows up to ``epoch``, or None if the trial never reached that epoch."""
    curve = trial.curve(metric.name)
    if epoch not in trial.rows:
        return None
    seen = [value for at, value in curve.items() if at <= epoch]
    if not seen:
        return None
    return max(seen) if metric.direction == "maximize" else min(seen)


def running_mean(trial: TrialView, metric: Metric, epoch: int) -> float | None:
    """Return the mean of the trial's values up to ``epoch``, or None if the trial never reached that epoch."""
    if epoch not in trial.rows:
        return None
    seen = [value for at, value in trial.curve(metric.name).items() if at <= epoch]
    return float(np.mean(seen)) if seen else None


def not_below_median(scheduler: MedianRule, metric: Metric, own: float, means: Iterable[float]) -> bool:
    """Return True if ``own`` is at least as good as the median of the others' running means (Golovin et al. 2017)."""
    values = list(means)
    if len(values) + 1 < scheduler.min_population:
        return True
    return not metric.better(float(np.median(values)), own)


def keeps_going(scheduler: Asha | Hyperband, metric: Metric, own: float, others: Iterable[float]) -> bool:
    """Return True if ``own`` is among the best ``1/reduction`` of all values at a rung.

    The cut is the (1 − 1/reduction) quantile of all values at the rung, as in Li et al. 2020. With fewer than
    ``min_population`` values every trial goes on.
    """
    values = np.array([own, *others])
    if len(values) < scheduler.min_population:
        return True
    good = values if metric.direction == "maximize" else -values
    return bool(good[0] >= np.quantile(good, 1 - 1 / scheduler.reduction))

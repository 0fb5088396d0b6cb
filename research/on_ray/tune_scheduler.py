"""Early stopping, decided from the ledger, and the one place where a trial's row is written.

Tune calls ``on_trial_result`` before anything else sees a result, and acts on what it returns. So the row and
its decision go into the ledger there, as one event: no state "stopped but not recorded" exists.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from research.ledger.comparison import facts_of_recorded
from research.ledger.log import RowReported
from research.ledger.settings import Asha, Hyperband, MedianRule, rungs
from research.search.rung_table import RungTable
from research.store.mirror import fetch_pictures

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ray.tune.experiment import Trial

    from research.ledger.events import Facts
    from research.ledger.log import Ledger, TrialView
    from research.ledger.settings import Metric


def value_at(trial: TrialView, metric: Metric, epoch: int) -> float | None:
    """The best value of the trial's rows up to ``epoch``, or None if it never reached it."""
    curve = trial.curve(metric.name)
    if epoch not in trial.rows:
        return None
    seen = [value for at, value in curve.items() if at <= epoch]
    if not seen:
        return None
    return max(seen) if metric.direction == "maximize" else min(seen)


def running_mean(trial: TrialView, metric: Metric, epoch: int) -> float | None:
    """The mean of the trial's values up to ``epoch``, or None if it never reached it."""
    if epoch not in trial.rows:
        return None
    seen = [value for at, value in trial.curve(metric.name).items() if at <= epoch]
    return float(np.mean(seen)) if seen else None


def not_below_median(scheduler: MedianRule, metric: Metric, own: float, means: Iterable[float]) -> bool:
    """Whether the best value ``own`` is at least the median of the others' running means (Golovin et al. 2017)."""
    values = list(means)
    if len(values) + 1 < scheduler.min_population:
        return True
    return not metric.better(float(np.median(values)), own)


def keeps_going(scheduler: Asha | Hyperband, metric: Metric, own: float, others: Iterable[float]) -> bool:
    """Whether a trial with value ``own`` at a rung is among the best ``1/reduction`` that have reached it.

    The cut is the (1 − 1/reduction) quantile of all values at the rung, as in Li et al. 2020; below
    ``min_population`` values everything goes on.
    """
    values = np.array([own, *others])
    if len(values) < scheduler.min_population:
        return True
    good = values if metric.direction == "maximize" else -values
    return bool(good[0] >= np.quantile(good, 1 - 1 / scheduler.reduction))


Decided = tuple[Any, str | None, list[int]]  # decision, reason, rungs settled


class LedgerScheduler(FIFOScheduler):
    """Writes each result with its decision into the ledger, then tells Tune the decision."""

    def __init__(
        self,
        ledger: Ledger,
        *,
        numbers_of: Callable[[Trial], Iterable[int]],
        visible_below: Callable[[int], int],
        on_row: Callable[[RowReported], None],
        on_error: Callable[[Trial], None],
    ) -> None:
        """``visible_below(n)``: trial n's stopping may be decided from the trials numbered less.

        ``numbers_of``: our trials in one of Tune's, several where they train as a stack.
        """
        super().__init__()  # type: ignore[no-untyped-call] # ray's has no annotations
        self.ledger = ledger
        self.numbers_of = numbers_of
        self.visible_below = visible_below
        self.reached = RungTable(
            ledger, running_mean if isinstance(ledger.settings.scheduler, MedianRule) else value_at
        )
        self.on_row = on_row
        self.on_error = on_error

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its scheduler into files that nobody reads: the ledger is the truth."""
        return {}

    def on_trial_result(self, tune_controller: object, trial: Trial, result: dict[str, Any]) -> str:
        """One result: decide, write, answer. An epoch reported again gets the decision that it got before.

        Tune's trial is stopped when all of ours in it have ended; that one of several has, its worker learns from the
        ledger's driver (``research.worker.ended_trials``).
        """
        del tune_controller
        report = json.loads(result["report"])
        number = report["trial"]
        view = self.ledger.trials[number]
        epoch = report["metrics"]["epoch"]
        facts = report.get("comparison") or facts_of_recorded(view.created.config, report["metrics"])
        if epoch not in view.rows and not view.terminal:
            decision, reason, judged = self._decide(view, report, facts)
            event = RowReported(
                trial=number,
                epoch=epoch,
                attempt=report["attempt"],
                metrics=report["metrics"],
                decision=decision,
                reason=reason,
                judged=judged,
                checkpoint=report["checkpoint"],
                checkpoint_sha256=report["checkpoint_sha256"],
                pictures=report["pictures"],
                worker=report["worker"],
                comparison=facts,
            )
            fetch_pictures(self.ledger.directory, event.pictures.values())  # first: W&B's process reads row and files
            self.ledger.append(event)
            self.on_row(event)
        going_on = any(not self.ledger.trials[each].terminal for each in self.numbers_of(trial))
        return str(TrialScheduler.CONTINUE if going_on else TrialScheduler.STOP)

    def on_trial_error(self, tune_controller: object, trial: Trial) -> None:
        """A worker raised or died; Tune tells the scheduler first."""
        del tune_controller
        self.on_error(trial)

    def _decide(self, view: TrialView, report: dict[str, Any], facts: Facts) -> Decided:
        """The decision on a row, why, and the rungs that it settles. ``facts``: by which it may be compared."""
        if (incomparable := self.ledger.why_incomparable(facts)) is not None:
            return "fail", incomparable, []
        settings = self.ledger.settings
        epoch, epochs = report["metrics"]["epoch"], report["epochs"]
        if report["diverged"] is not None:
            return "fail", report["diverged"], []
        for target in (settings.metric, *settings.objectives):
            if report["metrics"].get(target.name) is None:
                return "fail", f"{target.name} is not finite at epoch {epoch}", []
        value = report["metrics"][settings.metric.name]
        if epoch >= epochs:
            return "complete", None, []
        match settings.scheduler:
            case MedianRule() if epoch in rungs(settings.scheduler, epochs):
                return self._by_median(settings.scheduler, view, value, epoch, epochs)
            case Asha() | Hyperband():
                return self._by_rung(settings.scheduler, view, value, epoch, epochs)
        return "continue", None, []

    def _by_median(self, rule: MedianRule, view: TrialView, value: float, epoch: int, epochs: int) -> Decided:
        metric = self.ledger.settings.metric
        means = self.reached.others(view, epoch, below=self.visible_below(view.number), epochs=epochs)
        own = self._best_at(view, epoch, value, epoch)
        assert own is not None, "at the row itself there is its value"
        if not_below_median(rule, metric, own, means):
            return "continue", None, [epoch]
        return "pruned", f"worse than the median of {len(means)} others' running means at epoch {epoch}", [epoch]

    def _by_rung(self, halving: Asha | Hyperband, view: TrialView, value: float, epoch: int, epochs: int) -> Decided:
        """Judge at the highest rung reached that is still owed and that enough trials have reached by now.

        A trial that came to a rung when too few had been there goes on, and is judged there later, at whatever epoch
        it has come to: by its value at the rung, against all values there. Without this the first trials, one for each
        slot and drawn before anything is known, would all run to the full budget.
        """
        settled = max((rung for row in view.rows.values() for rung in row.judged), default=0)
        owed = [rung for rung in rungs(halving, epochs, view.number) if settled < rung <= epoch]
        if not owed:
            return "continue", None, []
        metric, below = self.ledger.settings.metric, self.visible_below(view.number)
        where = f" of bracket {halving.bracket(epochs, view.number)}" if isinstance(halving, Hyperband) else ""
        for rung in reversed(owed):
            seen = self.reached.others(view, rung, below=below, epochs=epochs)
            if len(seen) + 1 < halving.min_population:
                continue
            own = self._best_at(view, rung, value, epoch)
            if own is None or keeps_going(halving, metric, own, seen):
                return "continue", None, [rung]
            late = "" if rung == epoch else f", judged at epoch {epoch}"
            reason = f"not in the best 1/{halving.reduction} of {len(seen) + 1}{where} at epoch {rung}{late}"
            return "pruned", reason, [rung]
        return "continue", None, []

    def _best_at(self, view: TrialView, rung: int, value: float, epoch: int) -> float | None:
        """The trial's best value up to ``rung``; ``value`` is that of ``epoch``, which is not written down yet."""
        metric = self.ledger.settings.metric
        if rung < epoch:
            return value_at(view, metric, rung)
        before = value_at(view, metric, epoch - 1)
        return value if before is None or metric.better(value, before) else before

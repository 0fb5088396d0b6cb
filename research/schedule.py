"""Early stopping, decided from the ledger, and the one place where a trial's row is written.

Tune calls ``on_trial_result`` before anything else sees a result, and acts on what it returns. So the row and
its decision go into the ledger there, as one event: no state "stopped but not recorded" exists.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from research.ledger import RowReported
from research.settings import Asha, rungs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ray.tune.experiment import Trial

    from research.ledger import Ledger, TrialView
    from research.settings import Metric


def value_at(trial: TrialView, metric: Metric, epoch: int) -> float | None:
    """The best value of the trial's rows up to ``epoch``, or None if it never reached it."""
    curve = trial.curve(metric.name)
    if epoch not in trial.rows:
        return None
    seen = [value for at, value in curve.items() if at <= epoch]
    if not seen:
        return None
    return max(seen) if metric.direction == "maximize" else min(seen)


def keeps_going(scheduler: Asha, metric: Metric, own: float, others: Iterable[float]) -> bool:
    """Whether a trial with value ``own`` at a rung is among the best ``1/reduction`` that have reached it.

    The cut is the (1 − 1/reduction) quantile of all values at the rung, as in Li et al. 2020; below
    ``min_population`` values everything goes on.
    """
    values = np.array([own, *others])
    if len(values) < scheduler.min_population:
        return True
    good = values if metric.direction == "maximize" else -values
    return bool(good[0] >= np.quantile(good, 1 - 1 / scheduler.reduction))


class LedgerScheduler(FIFOScheduler):
    """Writes each result with its decision into the ledger, then tells Tune the decision."""

    def __init__(
        self,
        ledger: Ledger,
        *,
        number_of: Callable[[Trial], int],
        visible_to: Callable[[int], Iterable[TrialView]],
        on_row: Callable[[RowReported], None],
        on_error: Callable[[Trial], None],
    ) -> None:
        """``visible_to(n)``: the trials from which trial n's stopping may be decided."""
        super().__init__()  # type: ignore[no-untyped-call] # ray's has no annotations
        self.ledger = ledger
        self.number_of = number_of
        self.visible_to = visible_to
        self.on_row = on_row
        self.on_error = on_error

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its scheduler into files that nobody reads: the ledger is the truth."""
        return {}

    def on_trial_result(self, tune_controller: object, trial: Trial, result: dict[str, Any]) -> str:
        """One result: decide, write, answer. An epoch reported again gets the decision that it got before."""
        del tune_controller
        report = json.loads(result["report"])
        number = self.number_of(trial)
        view = self.ledger.trials[number]
        epoch = report["metrics"]["epoch"]
        if epoch not in view.rows and not view.terminal:
            decision, reason = self._decide(view, report)
            event = RowReported(
                trial=number,
                epoch=epoch,
                attempt=report["attempt"],
                metrics=report["metrics"],
                decision=decision,
                reason=reason,
                checkpoint=report["checkpoint"],
                checkpoint_sha256=report["checkpoint_sha256"],
                pictures=report["pictures"],
                worker=report["worker"],
            )
            self.ledger.append(event)
            self.on_row(event)
        again = view.rows.get(epoch)
        going_on = not view.terminal and again is not None and again.decision == "continue"
        return str(TrialScheduler.CONTINUE if going_on else TrialScheduler.STOP)

    def on_trial_error(self, tune_controller: object, trial: Trial) -> None:
        """A worker raised or died; Tune tells the scheduler first."""
        del tune_controller
        self.on_error(trial)

    def _decide(self, view: TrialView, report: dict[str, Any]) -> tuple[Any, str | None]:
        settings = self.ledger.settings
        epoch, epochs = report["metrics"]["epoch"], report["epochs"]
        if report["diverged"] is not None:
            return "fail", report["diverged"]
        value = report["metrics"].get(settings.metric.name)
        if value is None:
            return "fail", f"{settings.metric.name} is not finite at epoch {epoch}"
        if epoch >= epochs:
            return "complete", None
        if epoch in rungs(settings.scheduler, epochs) and isinstance(settings.scheduler, Asha):
            before = value_at(view, settings.metric, epoch - 1)
            own = value if before is None or settings.metric.better(value, before) else before
            others = [
                seen
                for other in self.visible_to(view.number)
                if other.number != view.number and (seen := value_at(other, settings.metric, epoch)) is not None
            ]
            if not keeps_going(settings.scheduler, settings.metric, own, others):
                return (
                    "pruned",
                    f"not in the best 1/{settings.scheduler.reduction} of {len(others) + 1} at epoch {epoch}",
                )
        return "continue", None

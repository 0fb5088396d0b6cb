"""Ray Tune's own OptunaSearch and ASHAScheduler, as a script that follows Ray's manual uses them.

Both are the real objects. They are called in the order in which Tune's controller calls them: the scheduler
sees a result first; the searcher sees it only where the trial goes on; a trial that was stopped, at a rung or at
its last epoch, is told to the searcher as complete, with the value that it had there.
"""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import optuna
from optuna.distributions import BaseDistribution, IntDistribution
from ray.tune.schedulers import ASHAScheduler, TrialScheduler
from ray.tune.search.optuna import OptunaSearch

if TYPE_CHECKING:
    from curves import Table

_METRIC = "elbo"
_CONTROLLER: Any = None  # which these two don't look at


class StockRayEngine:
    """OptunaSearch with its default sampler, asked for a trial when a slot is free."""

    def __init__(self, table: Table, *, seed: int, reduction: int = 3) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        logging.getLogger("ray.tune").setLevel(logging.ERROR)
        space: dict[str, BaseDistribution] = {name: IntDistribution(0, size - 1) for name, size in table.sizes.items()}
        self.searcher = OptunaSearch(space=space, metric=_METRIC, mode="max", seed=seed)
        self.scheduler = ASHAScheduler(metric=_METRIC, mode="max", max_t=table.epochs, reduction_factor=reduction)

    def ask(self, key: int) -> dict[str, int]:
        """Suggest, then add the trial to the scheduler."""
        params = self.searcher.suggest(str(key))
        assert params is not None
        self.scheduler.on_trial_add(_CONTROLLER, _trial(key))
        return params

    def tell(self, key: int, epoch: int, value: float) -> bool:
        """One result, through both."""
        result = {"training_iteration": epoch, _METRIC: value}
        if self.scheduler.on_trial_result(_CONTROLLER, _trial(key), result) == TrialScheduler.CONTINUE:
            self.searcher.on_trial_result(str(key), result)
            return True
        self.scheduler.on_trial_complete(_CONTROLLER, _trial(key), result)
        self.searcher.on_trial_complete(str(key), result)
        return False


def _trial(key: int) -> Any:  # noqa: ANN401 - as much of Ray's Trial as they look at
    return SimpleNamespace(trial_id=str(key))

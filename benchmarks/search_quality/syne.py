"""Syne Tune's schedulers on the table, in the environment made from peers-requirements.txt.

    .peers-venv/bin/python syne.py METHOD --seeds 30 --slots 4 --budget 5400 --within 0.25 [--table FILE]

Prints one JSON line for each seed. The schedulers are Syne Tune's own objects, called in the order in which its tuner
calls them. They draw from numpy's global generator too, which is seeded with the replay's seed.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from curves import DIGITS, load
from simulator import replay
from syne_tune.backend.trial_status import Trial
from syne_tune.config_space import choice, randint
from syne_tune.optimizer.baselines import ASHA, BOHB
from syne_tune.optimizer.scheduler import SchedulerDecision

if TYPE_CHECKING:
    from curves import Table

_METRIC, _EPOCH = "elbo", "epoch"
_NOW = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)

METHODS = {
    "syne-asha": (ASHA, False),
    "syne-bohb": (BOHB, False),
    "syne-bohb-categorical": (BOHB, True),
}


class SyneEngine:
    """One of its multi-fidelity schedulers, with rungs at 1, 3, 9 and the settings that it has by default."""

    def __init__(self, table: Table, *, method: str, seed: int) -> None:
        np.random.seed(seed)  # noqa: NPY002 - that is where Syne Tune draws from
        make, categorical = METHODS[method]
        space = {
            name: choice(list(range(size))) if categorical else randint(0, size - 1)
            for name, size in table.sizes.items()
        }
        self.scheduler = make(
            config_space=space,
            metric=_METRIC,
            time_attr=_EPOCH,
            max_t=table.epochs,
            do_minimize=False,
            random_seed=seed,
            grace_period=1,
            reduction_factor=3,
        )
        self.trials: dict[int, Trial] = {}

    def ask(self, key: int) -> dict[str, int]:
        """Suggest, then add."""
        suggestion = self.scheduler.suggest()
        assert suggestion is not None
        assert suggestion.spawn_new_trial_id
        assert suggestion.config is not None
        trial = Trial(trial_id=key, config=suggestion.config, creation_time=_NOW)
        self.trials[key] = trial
        self.scheduler.on_trial_add(trial)
        return {name: int(value) for name, value in suggestion.config.items()}

    def tell(self, key: int, epoch: int, value: float) -> bool:
        """One result. A trial that has come to its last epoch is complete; one stopped before is removed."""
        trial = self.trials[key]
        result = {_METRIC: value, _EPOCH: epoch}
        if self.scheduler.on_trial_result(trial, result) == SchedulerDecision.CONTINUE:
            return True
        self.scheduler.on_trial_remove(trial)
        del self.trials[key]
        return False


def main() -> None:
    """Replay the seeds asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("method", choices=METHODS)
    parser.add_argument("--seeds", type=int, nargs="+", required=True)
    parser.add_argument("--slots", type=int, required=True)
    parser.add_argument("--budget", type=int, required=True)
    parser.add_argument("--within", type=float, required=True)
    parser.add_argument("--table", type=Path, default=DIGITS)
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    table = load(options.table)
    for seed in options.seeds:
        engine = SyneEngine(table, method=options.method, seed=seed)
        limits: dict[str, Any] = {"slots": options.slots, "budget": options.budget}
        outcome = replay(engine, table, **limits, enough=table.best - options.within)
        print(json.dumps(outcome.record(options.method, seed)), flush=True)


if __name__ == "__main__":
    main()

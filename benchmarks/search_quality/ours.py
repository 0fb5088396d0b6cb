"""The project's own search and early stopping, driven without Ray: the searcher, the study, the scheduler, the ledger.

Only the worker is not real. The ledger and the study's journal are files, as always; in ``folder``, which is best in
memory (/dev/shm), because each event is synced to disk.
"""

from __future__ import annotations

import hashlib
import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from research.ledger.log import Ledger, SessionStarted, SweepCreated
from research.ledger.settings import Metric, Resources, SpaceSource, SweepSettings
from research.on_ray.tune_scheduler import LedgerScheduler
from research.on_ray.tune_searcher import LedgerSearcher
from research.search.spaces import Space
from research.search.study import StudyView
from vae.train_config import TrainConfig

if TYPE_CHECKING:
    from pathlib import Path

    import optuna
    from curves import Table

    from research.ledger.log import TrialView
    from research.ledger.settings import Sampler, Scheduler

ENDLESS = 1_000_000  # trials; the budget of epochs ends a replay


class EarlyAsFinal(StudyView):
    """What if the study were told as Ray's searcher tells it: a stopped trial COMPLETE, with its last value."""

    def tell(self, view: TrialView) -> None:
        """Tell how a trial ended, or would seem to have ended."""
        if view.status != "PRUNED":
            super().tell(view)
        elif view.number in self.untold:
            del self.untold[view.number]
            self.study.tell(view.number, list(view.curve(self.ledger.settings.metric.name).values())[-1])


class LedgerEngine:
    """A sweep's driver in the default mode, with ``sampler`` and ``scheduler``."""

    def __init__(
        self,
        table: Table,
        *,
        sampler: Sampler,
        scheduler: Scheduler,
        seed: int,
        slots: int,
        folder: Path,
        study: type[StudyView] = StudyView,
    ) -> None:
        """``folder`` must be new or empty."""
        self.table = table
        self.metric = Metric()
        source = SpaceSource(name="grid", source="", sha256=hashlib.sha256().hexdigest())
        settings = SweepSettings(
            name="replay",
            space=source,
            metric=self.metric,
            trials=ENDLESS,
            seed=seed,
            sampler=sampler,
            scheduler=scheduler,
            resources=Resources(concurrent=slots),
            measure=table.measure,
            data_hash="",
            split_hash="",
        )
        ledger = Ledger.create(folder, SweepCreated(settings=settings, code={}, versions={}, command=[]))
        ledger.append(SessionStarted(generation=0, pid=0, host="", code={}, versions={}, hardware={}))
        self.ledger = ledger
        self.numbers: dict[int, int] = {}  # a replay's key of a trial to the ledger's number
        self.searcher = LedgerSearcher(
            ledger,
            study(ledger, folder / "study.journal"),
            Space(function=self._space, source=source),
            assign=lambda views: {"trial": views[0].number},
            on_end=lambda _: None,
            ended_with_error=lambda _: False,
            stopping=lambda: False,
            on_failure=lambda _: False,
        )
        self.scheduler = LedgerScheduler(
            ledger,
            numbers_of=lambda trial: [int(trial.trial_id)],
            visible_below=self.searcher.visible_below,
            on_row=lambda _: None,
            on_error=lambda _: None,
        )

    def _space(self, trial: optuna.Trial) -> TrainConfig:
        """Every parameter is an integer index of the grid; what would be trained is in the table."""
        cell = 0
        for name, size in self.table.sizes.items():
            cell = cell * size + trial.suggest_int(name, 0, size - 1)
        # Another config for each cell: that is how a search of ours knows what it has tried.
        return TrainConfig(epochs=self.table.epochs, latent_size=1 + cell)

    def ask(self, key: int) -> dict[str, int] | None:
        """Draw the next trial; None when the search takes the space to be exhausted."""
        assignment = self.searcher.suggest(str(key))
        if not isinstance(assignment, dict):
            return None
        self.numbers[key] = assignment["trial"]  # skipped draws have numbers too
        params: dict[str, Any] = self.ledger.trials[self.numbers[key]].created.params
        return params

    def tell(self, key: int, epoch: int, value: float) -> bool:
        """Report a row as a worker would; the scheduler decides and writes."""
        report = {
            "trial": self.numbers[key],
            "attempt": 0,
            "metrics": {"epoch": epoch, self.metric.name: value, "measure": self.table.measure},
            "epochs": self.table.epochs,
            "diverged": None,
            "checkpoint": None,
            "checkpoint_sha256": None,
            "pictures": {},
            "worker": {},
        }
        trial: Any = SimpleNamespace(trial_id=str(self.numbers[key]))
        if self.scheduler.on_trial_result(None, trial, {"report": json.dumps(report)}) == LedgerScheduler.CONTINUE:
            return True
        self.searcher.on_trial_complete(str(key))
        return False

"""The project's own search and early stopping: its driver, without workers.

Only the worker is not real. The ledger and the study's journal are files, as always; in ``folder``, which is best in
memory (/dev/shm), because each event is synced to disk.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from research.driver.audience import Silent
from research.driver.driver import Completed, Driver
from research.driver.stopping import Stop
from research.ledger.events import SessionStarted, SweepCreated
from research.ledger.log import Ledger
from research.ledger.settings import Metric, Resources, SpaceSource, SweepSettings
from research.search.spaces import Space
from research.search.study import StudyView
from research.worker.messages import Report, ReportedRow
from vae.train_config import TrainConfig

if TYPE_CHECKING:
    from pathlib import Path

    import optuna
    from curves import Table

    from research.ledger.settings import Sampler, Scheduler
    from research.ledger.trial_view import TrialView

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
        self.driver = Driver(
            ledger,
            Space(function=self._space, source=source),
            Silent(),
            Stop(ledger),
            study=study(ledger, folder / "study.journal"),
            keep=lambda *_: [],
            why_incomparable=lambda _: None,
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
        tasks = self.driver.next()
        if not isinstance(tasks, list):
            return None
        self.numbers[key] = tasks[0].trial  # skipped draws have numbers too
        params: dict[str, Any] = self.ledger.trials[self.numbers[key]].created.params
        return params

    def tell(self, key: int, epoch: int, value: float) -> bool:
        """Report a row as a worker would; return True if the trial goes on."""
        number = self.numbers[key]
        report = Report(
            trial=number,
            attempt=0,
            epochs=self.table.epochs,
            rows=[ReportedRow(metrics={"epoch": epoch, self.metric.name: value, "measure": self.table.measure})],
            worker={},
        )
        if self.driver.report(report) == "continue":
            return True
        self.driver.left([number], Completed())
        return False

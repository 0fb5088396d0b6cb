"""A real driver without workers: a test asks for trials, reports rows and ends trials by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from research.driver.audience import Silent
from research.driver.driver import Completed, Driver, Turn
from research.driver.stopping import Stop
from research.worker.messages import Report, ReportedRow

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from research.driver.driver import Lost, Raised
    from research.ledger.events import Decision, RowReported
    from research.ledger.log import Ledger
    from research.search.spaces import Space


class DriverByHand:
    """A driver whose workers have names. It keeps no models, and its trials may be of invented data."""

    def __init__(self, ledger: Ledger, space: Space) -> None:
        """Continue the sweep in ``ledger``."""
        self.ledger = ledger
        self.stop = Stop(ledger)
        self.driver = Driver(ledger, space, Silent(), self.stop, keep=lambda *_: [], why_incomparable=lambda _: None)
        self.numbers: dict[str, list[int]] = {}

    def ask(self, worker: str) -> list[int] | Turn:
        """Return the numbers of the trials that ``worker`` is given."""
        tasks = self.driver.next()
        if isinstance(tasks, Turn):
            return tasks
        self.numbers[worker] = [task.trial for task in tasks]
        return self.numbers[worker]

    def left(self, worker: str, how: Completed | Raised | Lost | None = None) -> None:
        """``worker`` has left its trials."""
        self.driver.left(self.numbers.pop(worker), how or Completed())

    def report(self, row: RowReported, *, epochs: int, diverged: str | None = None) -> Decision:
        """Report ``row`` as a worker does; return the decision on it."""
        return self.driver.report(report_of(row, epochs=epochs, diverged=diverged))


def report_of(row: RowReported, *, epochs: int, diverged: str | None = None, **changes: Any) -> Report:
    """Return what a worker sends for ``row`` alone."""
    reported = ReportedRow(
        metrics=dict(row.metrics),
        diverged=diverged,
        checkpoint=row.checkpoint,
        checkpoint_sha256=row.checkpoint_sha256,
        pictures=dict(row.pictures),
    )
    fields: dict[str, Any] = {
        "trial": row.trial,
        "attempt": row.attempt,
        "epochs": epochs,
        "rows": [reported],
        "worker": dict(row.worker),
        "comparison": dict(row.comparison),
    }
    return Report(**(fields | changes))


class WorkerChannel:
    """A worker's connection to a test: ``on_report`` gets each report, and may raise to end the worker.

    ``on_report`` may return the next epoch that must be reported at once; else no epoch must.
    """

    def __init__(self, on_report: Callable[[Report], int | None], *, pause: Callable[[], bool] = lambda: False) -> None:
        """``pause()`` returns True if training should pause."""
        self.on_report = on_report
        self.pause_requested = pause

    def report(self, reports: Sequence[Report]) -> dict[int, int]:
        """Hand the reports to the test."""
        return {report.trial: self.on_report(report) or report.epochs for report in reports}

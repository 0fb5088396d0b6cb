"""A trial as the events of a ledger describe it: its rows, its retries, its end, and its status."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from research.ledger.events import SKIPPED, RowReported, TrialFailed, TrialRetried

if TYPE_CHECKING:
    from pydantic import JsonValue

    from research.ledger.events import FailKind, RetryCause, TrialCreated
    from research.ledger.settings import Metric

Status = Literal["RUNNING", "COMPLETE", "PRUNED", "FAIL", "SKIPPED"]

TIMES = ("time/train_seconds", "time/evaluation_seconds")  # the metrics that say how long an epoch took
_STATUS: dict[str, Status] = {"complete": "COMPLETE", "pruned": "PRUNED", "fail": "FAIL"}


@dataclass
class TrialView:
    """A trial as the events so far tell it. Rows are keyed by epoch: the first report of an epoch counts."""

    created: TrialCreated
    started: str  # iso time, utc
    updated: str  # of the latest event
    session: int  # index of the driver session in which the latest event was written
    latest: int = 0  # number of the latest event
    rows: dict[int, RowReported] = field(default_factory=dict)
    attempt: int = 0
    retries: Counter[RetryCause] = field(default_factory=Counter)  # since its last row, by cause
    whole_gpu: bool = False  # a share of one was too little
    final: RowReported | None = None
    failure: TrialFailed | None = None
    incomparable: str | None = None  # why its rows may not be ranked with the sweep's
    # As asked for so far. Of these rows alone: a copy with others begins anew.
    _curves: dict[str, dict[int, float]] = field(init=False, default_factory=dict, repr=False, compare=False)

    @property
    def number(self) -> int:
        return self.created.trial

    @property
    def terminal(self) -> bool:
        return self.final is not None or self.failure is not None

    @property
    def status(self) -> Status:
        if self.failure is not None:
            return "SKIPPED" if self.failure.kind in SKIPPED else "FAIL"
        if self.final is None:
            return "RUNNING"
        return "FAIL" if self.incomparable else _STATUS[self.final.decision]

    @property
    def reason(self) -> str | None:
        ended_by = self.failure or self.final
        if ended_by is None:
            return None
        return self.incomparable if self.failure is None and self.incomparable else ended_by.reason

    @property
    def fail_kind(self) -> FailKind | None:
        if self.failure is not None:
            return self.failure.kind
        if self.status != "FAIL":
            return None
        return "incomparable" if self.incomparable else "diverged"

    @property
    def last_checkpoint(self) -> RowReported | None:
        """The latest row that has a checkpoint: the one to continue from (a newer one on disk has no row)."""
        return max((row for row in self.rows.values() if row.checkpoint), key=lambda r: r.epoch, default=None)

    def curve(self, metric: str) -> dict[int, float]:
        """The finite values of ``metric`` by epoch, in order of epochs. Kept: not to be written to."""
        if metric not in self._curves:
            values = {epoch: finite(self.rows[epoch].metrics.get(metric)) for epoch in sorted(self.rows)}
            self._curves[metric] = {epoch: value for epoch, value in values.items() if value is not None}
        return self._curves[metric]

    def best(self, metric: Metric) -> RowReported | None:
        """The row with the best finite value of ``metric``, the earlier one of equals; None without one."""
        best: tuple[int, float] | None = None
        for epoch, value in self.curve(metric.name).items():
            if best is None or metric.better(value, best[1]):
                best = (epoch, value)
        return None if best is None else self.rows[best[0]]

    @property
    def seconds(self) -> float | None:
        """The seconds of training and evaluation by its rows; None if no row has them."""
        spent = [value for row in self.rows.values() for value in times(row)]
        return sum(spent) if spent else None

    def fold(self, event: RowReported | TrialRetried | TrialFailed, time: str, session: int, number: int) -> bool:
        """Take in one event. What comes after the end, or tells an epoch again, changes nothing: False."""
        if self.terminal:
            return False
        match event:
            case RowReported():
                if event.epoch in self.rows:
                    return False
                self._extend_curves(event)
                self.rows[event.epoch] = event
                self.retries.clear()
                if event.decision != "continue":
                    self.final = event
            case TrialRetried():
                self.attempt = event.attempt
                self.retries[event.cause] += 1
                self.whole_gpu = self.whole_gpu or event.cause == "out_of_memory"
            case TrialFailed():
                self.failure = event
        self.updated, self.session, self.latest = time, session, number
        return True

    def _extend_curves(self, row: RowReported) -> None:
        if row.epoch < max(self.rows, default=row.epoch):
            self._curves.clear()
        for metric, curve in self._curves.items():
            if (value := finite(row.metrics.get(metric))) is not None:
                curve[row.epoch] = value


def finite(value: JsonValue) -> float | None:
    """Return ``value`` as a float if it is a finite number, else None."""
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    return None


def times(row: RowReported) -> list[float]:
    """Return the seconds of training and evaluation that ``row`` has; a row may lack either."""
    return [value for name in TIMES if (value := finite(row.metrics.get(name))) is not None]

"""A clock that jumps while a sweep runs. What depends on it is small enough to be tested without setting one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from research.ledger import budget, chain
from research.ledger.log import Ledger
from research.ledger.settings import Budget
from tests.support.synthetic import new_ledger, row, trial

FAULT = "26 clock set back"


class Clock(datetime):
    """The time as the ledger reads it, which a test sets."""

    reads = datetime(2030, 1, 1, tzinfo=UTC)

    @classmethod
    def now(cls, tz=None):
        """What was set."""
        return cls.reads.astimezone(tz)


@pytest.fixture
def clock(monkeypatch):
    """A clock in the ledger's place that ``clock.reads`` sets."""
    monkeypatch.setattr(chain, "datetime", Clock)
    monkeypatch.setattr(Clock, "reads", datetime(2030, 1, 1, tzinfo=UTC))
    return Clock


@pytest.mark.fault(FAULT)
def test_events_keep_their_order(tmp_path, clock, tally):
    """Set back by a year between two rows: the ledger opens, in the order of its events, and goes on."""
    written = new_ledger(tmp_path)
    written.append(trial(0))
    written.append(row(0, 1, -9.0))
    before = written.updated
    clock.reads -= timedelta(days=365)
    written.append(row(0, 2, -8.0, "complete"))
    assert written.updated < before
    tally.happened()
    opened = Ledger.open(tmp_path)
    assert list(opened.trials[0].rows) == [1, 2]
    assert opened.trials[0].status == "COMPLETE"


@pytest.mark.fault(FAULT)
def test_patience_counts_events_not_hours(tmp_path, clock, tally):
    """The best trial ended last, with the clock set back: it is the latest all the same."""
    written = new_ledger(tmp_path, budget=Budget(patience=2))
    for number in range(3):
        written.append(trial(number))
    written.append(row(0, 1, -9.0, "complete"))
    written.append(row(1, 1, -8.0, "complete"))
    clock.reads -= timedelta(hours=3)
    written.append(row(2, 1, -1.0, "complete"))
    assert written.trials[2].updated < written.trials[0].updated
    tally.happened()
    assert budget.since_best(written) == 0
    assert budget.since_best(Ledger.open(tmp_path)) == 0


@pytest.mark.fault(FAULT)
def test_work_is_not_taken_back(tmp_path, tally):
    """A session that ends before it began, by its clock, adds nothing to --hours and takes nothing off."""
    written = new_ledger(tmp_path, budget=Budget(hours=1.0))
    now = datetime.now(UTC)
    hour = timedelta(hours=1)
    written.spans = [
        ((now - hour).isoformat(), (now - hour / 2).isoformat()),
        (now.isoformat(), (now - hour).isoformat()),
    ]
    tally.happened()
    assert budget.wall_seconds(written) == pytest.approx(1800)

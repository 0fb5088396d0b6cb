"""What is spent, what is left, and how a limit is raised."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from research.errors import UserError
from research.ledger import budget
from research.ledger.events import SweepExtended
from research.ledger.log import Ledger
from research.ledger.settings import Budget
from tests.support.synthetic import new_ledger, row, trial


def timed(number, epoch, elbo, seconds, decision="continue"):
    """A row that took this long."""
    reported = row(number, epoch, elbo, decision)
    reported.metrics.update({"time/train_seconds": seconds, "time/evaluation_seconds": seconds / 4})
    return reported


def test_each_limit_counts_what_it_says(tmp_path):
    """Epochs are rows, trial-hours are what the rows took, patience is trials ended since the best one ended."""
    ledger = new_ledger(tmp_path, budget=Budget(trial_hours=1.0, total_epochs=4, patience=2, hours=10.0))
    for number in range(4):
        ledger.append(trial(number))
    ledger.append(timed(0, 1, -9.0, 720.0, "complete"))
    ledger.append(timed(1, 1, -5.0, 720.0, "complete"))
    ledger.append(timed(2, 1, -7.0, 720.0, "complete"))
    assert budget.spent(ledger) is None
    limits = {limit.option: limit for limit in budget.limits(ledger)}
    assert limits["--trial-hours"].spent == pytest.approx(3 * 900 / 3600)
    assert limits["--total-epochs"].left == 1
    assert limits["--patience"].spent == 1
    ledger.append(timed(3, 1, -6.0, 4.0, "complete"))
    assert "--total-epochs 4 is spent" in str(budget.spent(ledger))
    assert budget.since_best(ledger) == 2


def test_hours_are_those_of_all_drivers_together(tmp_path):
    """The time between sessions, when nobody worked, is not counted; a driver at work is, up to now."""
    ledger = new_ledger(tmp_path, budget=Budget(hours=1.0))
    now = datetime.now(UTC)
    ledger.spans = [
        ((now - timedelta(hours=9)).isoformat(), (now - timedelta(hours=8.5)).isoformat()),
        ((now - timedelta(minutes=20)).isoformat(), (now - timedelta(minutes=20)).isoformat()),
    ]
    (limit,) = budget.limits(ledger, now)
    assert limit.spent == pytest.approx(0.5 + 1 / 3)
    assert budget.out_of_time(ledger) is None
    ledger.spans[1] = ((now - timedelta(minutes=31)).isoformat(), now.isoformat())
    assert "--hours 1 is spent" in str(budget.out_of_time(ledger))


@pytest.mark.parametrize(
    ("before", "text", "after"), [(None, "2", 2.0), (None, "+2", 2.0), (1.5, "+2", 3.5), (1.5, "2", 2.0)]
)
def test_a_limit_is_added_to_or_set_anew(before, text, after):
    """``+2`` is on top of what there is; a plain number is the new limit."""
    assert budget.raised(Budget(hours=before), budget.More(hours=text)) == Budget(hours=after)


@pytest.mark.parametrize(("field", "text"), [("hours", "1"), ("patience", "+0"), ("patience", "2.5"), ("hours", "nan")])
def test_a_limit_is_never_lowered(field, text):
    """Nor set to what is no number above 0."""
    with pytest.raises(UserError, match="must be"):
        budget.raised(Budget(hours=2.0, patience=3), budget.More(**{field: text}))


def test_an_extension_holds_from_then_on(tmp_path):
    """The ledger's settings are the created ones with the latest extension, also after it is read again."""
    ledger = new_ledger(tmp_path)
    ledger.append(SweepExtended(trials=30, budget=Budget(patience=9)))
    for read in (ledger, Ledger.open(tmp_path)):
        assert (read.settings.trials, read.settings.budget.patience) == (30, 9)
        assert read.created.settings.trials == 8

"""Follows a sweep that another process drives. It reads the ledger and writes nothing to the directory."""

from __future__ import annotations

import dataclasses
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from research.ledger.events import (
    SKIPPED,
    RowReported,
    RowsReported,
    SessionStarted,
    TrialCreated,
    TrialFailed,
    TrialRetried,
)
from research.ledger.settings import Budget
from research.store.lease import lease_holder
from research.store.lock import holder_of
from research.store.mirror import follow, relative
from research.text import shell
from research.views.live import LiveView
from research.views.show import counts

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    from research.ledger.events import Event
    from research.ledger.log import Ledger

POLL_SECONDS = 0.5
ASK_SECONDS = 2.0  # between two looks at the lock
GONE_SECONDS = 10.0  # without a driver before it is called gone: a new one may be starting
SILENT_SECONDS = 300.0  # without an event before a driver that holds its lock is called silent

Ending = Literal["ended", "interrupted", "gone"]


class Follower:
    """Reports the ledger's events to a :class:`LiveView`, as the driver does in its own process."""

    def __init__(self, ledger: Ledger, console: Console, *, now: Callable[[], datetime] | None = None) -> None:
        """Read the earlier events without printing, and take over the clock of the driver's latest session."""
        self.ledger = ledger
        self.now = now or (lambda: datetime.now(UTC))
        self.view = LiveView(console, ledger)
        self.without_driver: datetime | None = None  # since when
        self.told_silent_after = ""  # the event's time after which it was said that nothing comes
        self._take_up_session()

    def catch_up(self) -> None:
        """Read the new events and report them to the view."""
        follow(self.ledger.directory)
        for event in self.ledger.refresh():
            self._tell(event)
        self.view.refresh()

    def ending(self) -> Ending | None:
        """Return how the sweep has ended, according to its ledger; None while it has not."""
        running = any(not view.terminal for view in self.ledger.trials.values())
        if not running and self.ledger.trained >= self.ledger.settings.trials:
            return "ended"
        return "interrupted" if self.ledger.interrupted is not None else None

    def driver(self) -> str | None:
        """Return the present driver of the sweep in words; None if there is none."""
        return holder_of(self.ledger.directory) or lease_holder(self.ledger.directory)

    def ask_for_driver(self) -> Ending | None:
        """Return "gone" if nobody has held the lock for a while. Show a note if its holder writes nothing."""
        now = self.now()
        holder = self.driver()
        if holder is None:
            self.without_driver = self.without_driver or now
            return "gone" if (now - self.without_driver).total_seconds() >= GONE_SECONDS else None
        self.without_driver = None
        silent = (now - datetime.fromisoformat(self.ledger.updated)).total_seconds()
        if silent >= SILENT_SECONDS and self.told_silent_after != self.ledger.updated:
            self.told_silent_after = self.ledger.updated
            self.view.note(f"nothing was written for {silent / 60:.0f} min, but {holder} still drives the sweep")
        return None

    def _tell(self, event: Event) -> None:
        trials = self.ledger.trials
        match event:
            case SessionStarted():
                self._take_up_session()
            case TrialCreated():
                # A draw that is no config never started. Rows that were read at the same time come after this event.
                view = trials[event.trial]
                if view.fail_kind not in {"config", *SKIPPED} and (view.rows or view.fail_kind != "incomparable"):
                    self.view.started(dataclasses.replace(trials[event.trial], rows={}))
            case TrialRetried():
                self.view.started(trials[event.trial])
            case RowReported() | RowsReported():
                for row in event.each() if isinstance(event, RowsReported) else [event]:
                    self.view.row(row)
                    if row.decision != "continue":
                        self.view.ended(trials[row.trial])
            case TrialFailed() if event.kind not in SKIPPED:
                self.view.ended(trials[event.trial])
            case _:
                pass

    def _take_up_session(self) -> None:
        """Set the view's clock and counts as if it had run since the latest session began."""
        if not self.ledger.spans:
            return
        began = datetime.fromisoformat(self.ledger.spans[-1][0])
        # Without a driver the clock stands still at the time of the last event.
        now = self.now() if self.driver() is not None else datetime.fromisoformat(self.ledger.updated)
        clock = time.monotonic()
        self.view.began = clock - max(0.001, (now - began).total_seconds())
        self.view.rows_seen = self.ledger.session_rows
        first = self.ledger.first_row
        self.view.first_row = None if first is None else clock - (now - datetime.fromisoformat(first)).total_seconds()
        session = len(self.ledger.spans) - 1
        ended = [view for view in self.ledger.trials.values() if view.terminal]
        self.view.ended_before = sum(view.session != session for view in ended)


def watch(ledger: Ledger, console: Console) -> Ending:
    """Follow until the sweep has ended, was stopped, or has no driver any more. Return which of them."""
    follower = Follower(ledger, console)
    asked = -ASK_SECONDS
    try:
        while True:
            follower.catch_up()
            how = follower.ending()
            if how is None and time.monotonic() - asked >= ASK_SECONDS:
                asked = time.monotonic()
                how = follower.ask_for_driver()
            if how is not None:
                # The last events may have been written between reading the ledger and looking at the lock.
                follower.catch_up()
                return follower.ending() or how
            time.sleep(POLL_SECONDS)
    finally:
        follower.view.close()


def ending_line(ledger: Ledger, how: Ending) -> str:
    """Return how the sweep has ended, in one line for the user."""
    again = shell("research", "resume", relative(ledger.directory))
    states = counts(ledger)
    if how == "ended":
        return f"the sweep has ended: {ledger.settings.trials} trials, {states['FAIL']} of them failed"
    left = ledger.settings.trials - ledger.trained + states["RUNNING"]
    if how == "interrupted":
        assert ledger.interrupted is not None
        why = f"was stopped ({ledger.interrupted.reason})"
    else:
        spent = "spent its budget, " if ledger.settings.budget != Budget() else ""
        since = ledger.updated[:19].replace("T", " ")
        why = f"has no driver: it {spent}gave up or was killed; the last event is of {since} UTC"
    trials = "1 trial is" if left == 1 else f"{left} trials are"
    return f"the sweep {why}; {trials} left. Continue with: {again}"

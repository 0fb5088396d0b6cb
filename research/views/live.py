"""The display of a running sweep: a live table on a terminal, plain lines if the output is piped."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from research.ledger.budget import limits
from research.text import number_text, visible
from research.views.doubts import doubts_of, short, warnings
from research.views.show import parameters, states_shown, value_of

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from research.ledger.events import RowReported
    from research.ledger.log import Ledger
    from research.ledger.trial_view import TrialView

REFRESH_SECONDS = 0.5
_OTHER_LINES = 10  # lines of a frame besides those of the running trials


class LiveView:
    """Shows the ledger while a sweep runs. The driver reports each event to it."""

    def __init__(self, console: Console, ledger: Ledger) -> None:
        """Prepare the view. Nothing is drawn before the first :meth:`refresh`."""
        self.console = console
        self.ledger = ledger
        self.began = time.monotonic()
        self.first_row: float | None = (
            None  # the time before it is the workers' start, which says nothing about the pace
        )
        self.rows_seen = 0
        self.ended_before = _ended(ledger)
        self.drawn = 0.0
        self.notes: list[str] = []
        self.live: Live | None = None

    def started(self, view: TrialView) -> None:
        """Note that a worker has begun a trial."""
        if not self.console.is_terminal:
            how = f"continues after epoch {max(view.rows)}" if view.rows else "starts"
            self.console.print(f"trial {view.number} {how}: {parameters(view)}", soft_wrap=True)

    def row(self, row: RowReported) -> None:
        """Note that a row was written."""
        del row
        self.rows_seen += 1
        self.first_row = self.first_row or time.monotonic()

    def ended(self, view: TrialView) -> None:
        """Note that a trial has ended."""
        if not self.console.is_terminal:
            self.console.print(self._line(view), soft_wrap=True)

    def note(self, text: str) -> None:
        """Show a message for the user."""
        text = visible(text)
        self.notes.append(text)
        if not self.console.is_terminal:
            self.console.print(text, soft_wrap=True)
        self.refresh(force=True)

    def refresh(self, *, force: bool = False) -> None:
        """Draw the table again, at most twice a second unless ``force`` is set."""
        if not self.console.is_terminal or (not force and time.monotonic() - self.drawn < REFRESH_SECONDS):
            return
        self.drawn = time.monotonic()
        if self.live is None:
            self.live = Live(console=self.console, auto_refresh=False, transient=True)
            self.live.start()
        self.live.update(self.frame(), refresh=True)

    def close(self) -> None:
        """Remove the table from the screen."""
        if self.live is not None:
            self.live.stop()
            self.live = None

    def time_left(self) -> str:
        """Return an estimate of the time left, from the trials that ended in this session."""
        ended = _ended(self.ledger)
        here = ended - self.ended_before
        if self.first_row is None:
            return "starting workers"
        if here == 0:
            return "time left unknown"
        seconds = (time.monotonic() - self.first_row) / here * (self.ledger.settings.trials - ended)
        told = f"about {_duration(seconds)} left"
        return "; ".join([told, *(f"{limit.option} {limit}" for limit in limits(self.ledger, datetime.now(UTC)))])

    def _line(self, view: TrialView) -> str:
        metric = self.ledger.settings.metric
        value = value_of(view, metric)
        if view.status == "SKIPPED":
            return visible(f"trial {view.number} skipped: {view.reason}")
        ended = _ended(self.ledger)
        how = {"COMPLETE": "completed", "PRUNED": "pruned", "FAIL": "FAILED"}[view.status]
        parts = [f"trial {view.number} {how} at epoch {max(view.rows, default=0)}"]
        if value is not None:
            parts.append(f"{metric.name} {number_text(value)}")
        if view.status == "FAIL":
            parts.append(f"{view.fail_kind}: {view.reason}")
        elif found := doubts_of(self.ledger, view):
            parts.append(f"warning: {short(found)}")
        best = next(self.ledger.in_order(), None)
        if best is not None:
            parts.append(f"best {number_text(value_of(best, metric))} (trial {best.number})")
        parts.append(f"{ended} of {self.ledger.settings.trials} ended, {self.time_left()}")
        return visible(" | ".join(parts))

    def frame(self) -> RenderableType:
        """Return the present table."""
        settings, metric = self.ledger.settings, self.ledger.settings.metric
        states = states_shown(self.ledger)
        seconds = time.monotonic() - self.began
        head = Text.assemble(
            ("sweep ", "bold"),
            visible(f"{settings.name}  {settings.space.name}  "),
            *[(f"{count} {state}  ", _STYLES[state]) for state, count in states.items()],
            f"of {settings.trials}",
        )
        pace = Text(
            f"{_duration(seconds)} elapsed, {self.time_left()}, {self.rows_seen / seconds:.2f} epochs/s, {visible(settings.measure)}",
            style="dim",
        )
        running = Table(box=None, pad_edge=False, header_style="bold")
        for name in ("trial", "epoch", metric.name, "val/reconstruction", "val/kl", "examples/s"):
            running.add_column(name, justify="right")
        running.add_column("parameters", overflow="fold")
        # The table is cut to the screen's height. Drawing hundreds of trials would keep the driver busy.
        room = max(1, self.console.height - _OTHER_LINES)
        for view in islice(self.ledger.standing.running.values(), room):
            last = view.rows[max(view.rows)].metrics if view.rows else {}
            rate = last.get("time/examples_per_second")
            running.add_row(
                str(view.number),
                f"{max(view.rows, default=0)}/{view.created.config['epochs']}",
                *[number_text(last.get(n)) for n in (metric.name, "val/reconstruction", "val/kl")],
                f"{rate:,.0f}" if isinstance(rate, float) else "-",
                parameters(view),
            )
        parts: list[RenderableType] = [head, pace, running]
        if (more := len(self.ledger.standing.running) - room) > 0:
            parts.append(Text(f"and {more} more", style="dim"))
        best = next(self.ledger.in_order(include_running=True), None)
        if best is not None:
            parts.append(
                Text.assemble(
                    ("best ", "bold green"),
                    f"trial {best.number}  {metric.name} {number_text(value_of(best, metric))}  {parameters(best)}",
                )
            )
            parts += [Text(line, style="yellow") for line in warnings(self.ledger, [best])]
        parts += [Text(note, style="yellow") for note in self.notes[-3:]]
        return Group(*parts)


_STYLES = {"COMPLETE": "green", "PRUNED": "yellow", "FAIL": "red", "SKIPPED": "dim", "RUNNING": "cyan"}


def _ended(ledger: Ledger) -> int:
    return len(ledger.standing.places)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"

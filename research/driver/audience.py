"""The interface through which a driver reports progress, for example to the live view."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from research.ledger.events import RowReported
    from research.ledger.trial_view import TrialView


class Audience(Protocol):
    """Receiver of progress reports; :class:`research.views.live.LiveView` implements it."""

    def started(self, view: TrialView) -> None:
        """Called when a trial is handed to a worker."""

    def row(self, row: RowReported) -> None:
        """Called after a row was written to the ledger."""

    def ended(self, view: TrialView) -> None:
        """Called when a trial has ended."""

    def note(self, text: str) -> None:
        """Show a message to the user."""

    def refresh(self) -> None:
        """Redraw; called about once per second."""

    def close(self) -> None:
        """End the display; no call follows."""


class Silent:
    """An audience that shows nothing."""

    def started(self, view: TrialView) -> None:
        """Ignore the start."""

    def row(self, row: RowReported) -> None:
        """Ignore the row."""

    def ended(self, view: TrialView) -> None:
        """Ignore the end."""

    def note(self, text: str) -> None:
        """Ignore the message."""

    def refresh(self) -> None:
        """Draw nothing."""

    def close(self) -> None:
        """End nothing."""

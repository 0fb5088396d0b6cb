"""The request to stop a sweep: by a signal, a spent budget, or because nothing can be written any more."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from research.driver.engine import EngineLostError
from research.errors import storing
from research.ledger import budget
from research.patience import patient
from research.store.mirror import address as address_of
from research.terminal import complain, output_lost
from research.text import shell

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from research.ledger.log import Ledger

_SAVING_S = 10.0  # for running trials to be left where they are when the sweep is to stop


class Stop:
    """A request to stop, which the engine looks at between two events.

    Workers see it as a file. They have some seconds to save their state in the middle of an epoch.
    """

    def __init__(self, ledger: Ledger) -> None:
        """Nothing is asked for yet."""
        self.signal: int | None = None
        self.budget: str | None = None
        self.lost: str | None = None  # says that the cluster is gone
        self.ledger = ledger
        self.running = False  # a trial has a worker
        self.file: Path | None = None  # the file that workers look for; None: they can save only whole epochs
        self.until: float | None = None  # the deadline for workers to save their state
        self.how_to_go_on = f"Continue with: {shell('research', 'resume', address_of(ledger.directory))}"

    def asked(self) -> bool:
        """Return True if the session is to stop: on request, at the end of its time, or because writing fails."""
        if self.signal is None and (lost := output_lost()) is not None:
            self.signal = signal.SIGPIPE
            complain(f"\nstopping: {lost}. {self.how_to_go_on}")
        if self.signal is None and self.budget is None:
            self.budget = budget.out_of_time(self.ledger)
        return self.signal is not None or self.budget is not None or self.ledger.refused is not None

    def stop_all(self) -> bool:
        """Return True if running trials are to end now: a stop was requested, and nothing more can be saved."""
        if not self.asked():
            return False
        if self.file is None or not self.running or self.ledger.refused is not None:
            return True
        if self.until is None:
            self.until = time.monotonic() + patient(_SAVING_S)
            with storing(self.file):
                self.file.touch()
        return time.monotonic() >= self.until


@contextmanager
def signals(stop: Stop) -> Iterator[None]:
    """Turn the first SIGINT or SIGTERM into a clean stop and the second into an immediate one.

    An engine sends SIGUSR1 when its cluster is gone. Outside the main thread no handler can be set, and none is.
    """

    def handle(number: int, frame: object) -> None:
        del frame
        if number == signal.SIGUSR1:
            raise EngineLostError(stop.lost)
        if stop.signal is None:
            stop.signal = number
            kept = "keep their last checkpoint" if stop.file is None else "are saved first"
            complain(f"\nstopping: running trials {kept} (once more: stop now)")
            return
        complain("\nstopped now; everything up to the last finished epochs is in the ledger")
        os._exit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

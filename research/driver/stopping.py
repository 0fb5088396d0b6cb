"""That a sweep is to stop: by a signal, a spent budget, or because nothing can be written down any more."""

from __future__ import annotations

import os
import signal
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ray.tune import Stopper

from research.errors import storing
from research.ledger import budget
from research.on_ray.watch import RayLostError
from research.patience import patient
from research.store.mirror import address as address_of
from research.terminal import complain, output_lost
from research.text import shell

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from research.ledger.log import Ledger

_SAVING_S = 10.0  # for running trials to be left where they are when the sweep is to stop


class Stop(Stopper):
    """A request to stop, by signal or budget: Tune looks at it between events and then ends the experiment.

    Before that the workers are told, by a file, and have some seconds to save what they are in the middle of.
    """

    def __init__(self, ledger: Ledger) -> None:
        """When the time is up, running trials are to end as well."""
        self.signal: int | None = None
        self.budget: str | None = None
        self.lost: str | None = None  # that Ray is gone, in words
        self.ledger = ledger
        self.running = False  # whether any trial is
        self.file: Path | None = None  # where workers look; None: they can save nothing between two epochs
        self.until: float | None = None  # when workers that were told are waited for no longer
        self.how_to_go_on = f"Continue with: {shell('research', 'resume', address_of(ledger.directory))}"

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its stopper into files that nobody reads: the ledger is the truth."""
        return {}

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Never for one trial: trials are stopped by the scheduler, which writes it down."""
        del trial_id, result
        return False

    def asked(self) -> bool:
        """Whether somebody asked, the time is up, or nothing can be written down any more."""
        if self.signal is None and (lost := output_lost()) is not None:
            self.signal = signal.SIGPIPE
            complain(f"\nstopping: {lost}. {self.how_to_go_on}")
        if self.signal is None and self.budget is None:
            self.budget = budget.out_of_time(self.ledger)
        return self.signal is not None or self.budget is not None or self.ledger.refused is not None

    def stop_all(self) -> bool:
        """Whether to end what runs: it is asked for, and there is nothing, or no more time, to save."""
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
    """SIGINT and SIGTERM once ask for a clean stop, again stop now; SIGUSR1 is the watch's, when Ray is gone."""

    def handle(number: int, frame: object) -> None:
        del frame
        if number == signal.SIGUSR1:
            raise RayLostError(stop.lost)
        if stop.signal is None:
            stop.signal = number
            kept = "keep their last checkpoint" if stop.file is None else "are saved first"
            complain(f"\nstopping: running trials {kept} (once more: stop now)")
            return
        complain("\nstopped now; everything up to the last finished epochs is in the ledger")
        os._exit(128 + number)

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

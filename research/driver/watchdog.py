"""Detection of trials that make no progress: on a worker that reports nothing, or waiting for a node."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

TIMES_SLOWEST = 10.0
# At most this much is counted between two looks. While the driver itself was stopped, no worker could report to it.
MOST_BETWEEN_LOOKS = 5.0


class Watchdog:
    """Finds trials that have reported no epoch for too long, and sweeps whose trials wait too long for a place.

    A trial is stuck when it has reported nothing for ``minutes``, or for ten times the slowest epoch of the sweep,
    whichever is longer. Before the first epoch of a sweep no trial is stuck, because the length of an epoch is not
    known yet. With ``minutes`` 0 no trial ever is.
    """

    def __init__(
        self,
        minutes: float,
        *,
        slowest: float = 0.0,
        waiting_minutes: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``slowest``: the slowest epoch of earlier sessions in seconds, 0.0 if there is none."""
        self.minutes = minutes
        self.slowest = slowest
        self.waiting_minutes = waiting_minutes
        self.clock = clock
        self.looked: float | None = None
        self.silent: dict[int, float] = {}  # seconds since a running trial's start or last row
        self.without_place = 0.0  # seconds that trials have waited with none running
        self.told = False

    def row(self, trial: int) -> None:
        """Note that ``trial`` has reported an epoch."""
        self.slowest = max(self.slowest, self.silent.get(trial, 0.0), 1e-3)
        self.silent[trial] = 0.0

    def look(self, running: Iterable[int], waiting: int = 0) -> list[int]:
        """Return the stuck trials among the ``running`` ones. Each is returned once and then counted anew."""
        now = self.clock()
        passed = 0.0 if self.looked is None else min(now - self.looked, MOST_BETWEEN_LOOKS)
        self.looked = now
        running = set(running)
        self.silent = {trial: self.silent.get(trial, -passed) + passed for trial in running}
        self.without_place = self.without_place + passed if waiting and not running else 0.0
        stuck = [trial for trial, seconds in self.silent.items() if seconds > self.deadline]
        for trial in stuck:
            del self.silent[trial]
        return sorted(stuck)

    @property
    def deadline(self) -> float:
        """The time without a report after which a trial is stuck, in seconds."""
        if self.minutes == 0 or self.slowest == 0.0:
            return float("inf")
        return max(60 * self.minutes, TIMES_SLOWEST * self.slowest)

    def no_place(self) -> bool:
        """Return True once if trials have waited for ``waiting_minutes`` while none ran."""
        late = self.without_place > 60 * self.waiting_minutes
        told, self.told = self.told, late
        return late and not told

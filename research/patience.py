"""Deadlines that a busy machine does not trip: longer where more processes want to run than there are cores."""

from __future__ import annotations

import os

_MOST = 4.0  # times as long, at most


def patient(seconds: float) -> float:
    """Return ``seconds``, or up to four times as many on a busy machine, by its load for each core."""
    return seconds * min(_MOST, max(1.0, busyness()))


def busyness() -> float:
    """Return the processes that want to run for each core that this process may use, averaged over the last minute."""
    try:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return os.getloadavg()[0] / cores
    except OSError:  # a system that does not say
        return 1.0

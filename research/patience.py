"""Timeouts that become longer if more processes want to run than there are cores."""

from __future__ import annotations

import os

_MOST = 4.0  # the largest factor


def patient(seconds: float) -> float:
    """Return ``seconds`` multiplied by the load per core, by at least 1 and at most 4."""
    return seconds * min(_MOST, max(1.0, busyness()))


def busyness() -> float:
    """Return the processes that want to run for each core that this process may use, averaged over the last minute."""
    try:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return os.getloadavg()[0] / cores
    except OSError:  # the system does not report its load
        return 1.0

"""The answers of objectives without a schedule to questions about schedules."""

from __future__ import annotations

from typing import ClassVar


class Unannealed:
    """One sample of z, nothing annealed, no cycle."""

    samples: ClassVar[int] = 1
    importance_weighted: ClassVar[bool] = False

    def annealing_epochs(self, epochs: int) -> int:
        """Nothing to wait for."""
        del epochs
        return 0

    def cycle_epochs(self, epochs: int) -> float | None:
        """Nothing cycles."""
        del epochs
        return None

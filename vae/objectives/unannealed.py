"""The parts of an objective that are the same for all objectives without a schedule."""

from __future__ import annotations

from typing import ClassVar


class Unannealed:
    """An objective with one sample of z, no annealing and no cycle."""

    samples: ClassVar[int] = 1
    importance_weighted: ClassVar[bool] = False

    def annealing_epochs(self, epochs: int) -> int:
        """Return 0: there is no annealing."""
        del epochs
        return 0

    def cycle_epochs(self, epochs: int) -> float | None:
        """Return None: there is no cycle."""
        del epochs
        return None

"""An actor of Ray that says which trials of a stack the driver has ended.

Tune tells a worker to go on or to stop, and nothing about one trial of several. So the driver keeps the numbers of ended
trials in an actor. The worker asks it after the reports of each epoch, when the decisions are known.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ray

if TYPE_CHECKING:
    from collections.abc import Iterable

_NAME = "ended-trials"  # in the driver's own namespace


class _Ended:
    def __init__(self) -> None:
        self.numbers = set[int]()

    def add(self, number: int) -> None:
        self.numbers.add(number)

    def among(self, numbers: set[int]) -> set[int]:
        return self.numbers & numbers


class EndedTrials:
    """The driver's handle of the actor."""

    def __init__(self) -> None:
        """Start the actor, which ends with the driver."""
        self.actor: Any = (
            ray.remote(_Ended).options(name=_NAME, num_cpus=0, max_restarts=-1, max_task_retries=-1).remote()
        )

    def add(self, number: int) -> None:
        """Note that trial ``number`` has ended; return when every worker can see it."""
        ray.get(self.actor.add.remote(number))


def ended_among(numbers: Iterable[int]) -> set[int]:
    """Return those of ``numbers`` that have ended; called on a worker."""
    actor: Any = ray.get_actor(_NAME)
    ended: set[int] = ray.get(actor.among.remote(set(numbers)))
    return ended

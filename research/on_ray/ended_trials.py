"""How a worker that trains several trials as a stack learns which of them the driver has ended.

Tune tells a worker to go on or to stop, nothing about one of several. So the driver keeps the numbers of ended trials
in an actor of Ray's, and the worker asks it after each epoch's reports, which come back when the decisions are known.
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
    """The driver's end."""

    def __init__(self) -> None:
        """Start the actor; it ends with the driver."""
        self.actor: Any = (
            ray.remote(_Ended).options(name=_NAME, num_cpus=0, max_restarts=-1, max_task_retries=-1).remote()
        )

    def add(self, number: int) -> None:
        """Trial ``number`` has ended; returns when every worker can know."""
        ray.get(self.actor.add.remote(number))


def ended_among(numbers: Iterable[int]) -> set[int]:
    """The worker's end: which of ``numbers`` have ended."""
    actor: Any = ray.get_actor(_NAME)
    ended: set[int] = ray.get(actor.among.remote(set(numbers)))
    return ended

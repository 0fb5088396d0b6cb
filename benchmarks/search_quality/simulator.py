"""A sweep without training: trials run in W slots, and what they report is read from the table.

An epoch takes one unit of time, so slots report in turn and a replay depends on nothing but its engine's seed.
A slot that a trial has left asks at once for the next one. No start of a worker, no time to think of the next
configuration: what is counted is epochs of training. Plain Python: every environment runs it.
"""

from __future__ import annotations

import heapq
import itertools
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from curves import Table


class Engine(Protocol):
    """A sampler and a scheduler, as a sweep sees them."""

    def ask(self, key: int) -> dict[str, int] | None:
        """The next trial, called ``key``: an index of the grid for each parameter; None when nothing new is left."""

    def tell(self, key: int, epoch: int, value: float) -> bool:
        """A trial's value after ``epoch``. Whether it goes on; False at the last epoch."""


@dataclass
class Outcome:
    """What one replay came to."""

    epochs: int = 0  # spent, all slots together
    trials: int = 0  # started
    cells: set[int] = field(default_factory=set)  # different ones among them
    ended: list[int] = field(default_factory=list)  # epochs of each trial that ended, in order of their ends
    improvements: list[tuple[int, float]] = field(default_factory=list)  # (epochs spent by then, best value so far)

    def record(self, method: str, seed: int) -> dict[str, Any]:
        """One line of a file of results."""
        return {
            "method": method,
            "seed": seed,
            "epochs": self.epochs,
            "trials": self.trials,
            "cells": len(self.cells),
            "improvements": self.improvements,
        }


def replay(engine: Engine, table: Table, *, slots: int, budget: int, enough: float = math.inf) -> Outcome:
    """Run until ``budget`` epochs are spent, or some trial has shown ``enough``, or the engine has nothing left to try.

    A cell that the engine gives again runs again, at its full price and with the same curve.
    """
    outcome = Outcome()
    order = itertools.count()
    reports: list[tuple[int, int, int, int, int]] = []  # to come: time, order, trial, its cell, its epoch
    best = -math.inf

    def start(now: int) -> None:
        key = outcome.trials
        drawn = engine.ask(key)
        if drawn is None:
            return
        cell = table.cell(drawn)
        outcome.trials += 1
        outcome.cells.add(cell)
        heapq.heappush(reports, (now + 1, next(order), key, cell, 1))

    for _ in range(slots):
        start(0)
    while reports and outcome.epochs < budget and best < enough:
        now, _, key, cell, epoch = heapq.heappop(reports)
        outcome.epochs += 1
        value = table.curves[cell][epoch - 1]
        if value > best:
            best = value
            outcome.improvements.append((outcome.epochs, value))
        if engine.tell(key, epoch, value):
            heapq.heappush(reports, (now + 1, next(order), key, cell, epoch + 1))
        else:
            outcome.ended.append(epoch)
            start(now)
    return outcome

"""The seam between the training loop and the code that only makes its steps faster.

A step that is launched here equals the plain step to rounding, see
``tests/vae/fast/test_recorded.py::test_recorded_step_of_each_part_equals_the_plain_step``.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Protocol

import torch

from vae.fast.allocator import keep_freed_memory
from vae.fast.lean_optimizers import lean
from vae.fast.recorded import Recorded, why_not_recorded

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from torch import Tensor

    from vae.model import VAE, Terms
    from vae.run import Run

    Step = Callable[..., Mapping[str, Tensor]]
    Settings = Sequence[Sequence[float]] | Sequence[Tensor]  # the numbers that a step needs, step by step

__all__ = ["Launcher", "compiled", "launcher", "lean"]


class Launcher(Protocol):
    """Takes the steps of an epoch on a device."""

    @property
    def take(self) -> Step:
        """Return the function that takes one step and returns its values by name."""

    def stream(self) -> AbstractContextManager[None]:
        """Return the context in which an epoch's steps are taken and their values are read."""

    def settings(self, schedule: Sequence[Sequence[float]]) -> Settings:
        """Return the rows of ``schedule``, one for each step, in the form that :attr:`take` needs."""


class Plain:
    """Launcher that calls the step itself, with the schedule's numbers as they are."""

    def __init__(self, step: Step) -> None:
        self.take = step

    def stream(self) -> AbstractContextManager[None]:
        """Return a context that does nothing."""
        return nullcontext()

    def settings(self, schedule: Sequence[Sequence[float]]) -> Settings:
        """Return ``schedule``."""
        return schedule


def launcher(
    step: Step, runs: Sequence[Run], device: torch.device, generators: Sequence[torch.Generator] = ()
) -> Launcher:
    """Return the fastest launcher for ``step``, which takes a step of all ``runs`` on ``device``.

    On a GPU the step is captured as a CUDA graph where that is possible. ``generators`` are the random generators that
    the step draws from besides torch's own. Memory that tensors free is kept for the process.
    """
    keep_freed_memory()
    if any(why_not_recorded(run, device) is not None for run in runs):
        return Plain(step)
    return Recorded(step, device, generators)


def compiled(model: VAE) -> Callable[..., Terms]:
    """Return ``model.terms`` compiled by ``torch.compile``.

    The compiler's own CUDA graphs stay off, because on a GPU the whole step is captured as one graph.

    All earlier compilations of this process are dropped, and repeated when they are called again. Torch counts
    compilations for each function over all models. After eight of them it silently runs the function uncompiled.
    """
    torch.compiler.reset()
    terms: Callable[..., Terms] = torch.compile(model.terms)
    return terms

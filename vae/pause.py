"""A run that is left in the middle of an epoch, and what its state then has beside that of a run between two epochs.

Between epochs nothing is needed but weights, optimizer, average and two counters (:mod:`vae.state`). In the middle of one
torch's generators are somewhere in the epoch's noise, and the row will tell of the steps that are already done.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from vae.run import Run
    from vae.state import TrainState

    Asked = Callable[[], bool]  # whether the run is to pause; looked at after every step

_STEPS = "epoch/"  # before the name of a value that each step leaves behind
_SECONDS = "epoch_seconds"
_GENERATOR = "generator"  # of torch on the CPU, which draws a run's noise there
_DEVICES = "generator_of_device"


class Paused(Exception):
    """A run was asked to pause, and has between two steps. ``state``: the run now, live: save it before anything else."""

    def __init__(self, state: TrainState) -> None:
        """The message says where."""
        super().__init__(f"paused after step {state.step}, in epoch {state.epoch + 1}")
        self.state = state


@dataclass(frozen=True)
class Begun:
    """The steps of an epoch that were done before a pause: their values as ``vae.run.read`` gives them, and their time."""

    by_step: dict[str, Tensor] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def steps(self) -> int:
        """The number of steps that were done."""
        return len(next(iter(self.by_step.values()), ()))

    def followed_by(self, by_step: dict[str, Tensor]) -> dict[str, Tensor]:
        """The values of the whole epoch."""
        return {name: torch.cat([self.by_step[name], v]) if self.by_step else v for name, v in by_step.items()}


def paused(run: Run, begun: Begun, device: torch.device) -> Paused:
    """Return the exception to raise after a step of ``run``; ``begun`` holds the steps of the epoch so far."""
    state = run.state()
    more = {f"{_STEPS}{name}": values for name, values in begun.by_step.items()}
    more |= {_SECONDS: torch.tensor(begun.seconds, dtype=torch.float64), _GENERATOR: torch.get_rng_state()}
    if device.type == "cuda":
        more[_DEVICES] = torch.cuda.get_rng_state(device)
    return Paused(dataclasses.replace(state, tensors=state.tensors | more))


def in_mid_epoch(state: TrainState) -> bool:
    """Return True if ``state`` was saved in the middle of an epoch."""
    return _GENERATOR in state.tensors


def take_up(state: TrainState | None, device: torch.device) -> Begun:
    """The part of the next epoch that is done in ``state``; torch's generators are put where they were then."""
    if state is None or not in_mid_epoch(state):
        return Begun()
    torch.set_rng_state(state.tensors[_GENERATOR].cpu())
    if _DEVICES in state.tensors and device.type == "cuda":
        torch.cuda.set_rng_state(state.tensors[_DEVICES].cpu(), device)
    steps = {name.removeprefix(_STEPS): v.clone() for name, v in state.tensors.items() if name.startswith(_STEPS)}
    return Begun(steps, state.tensors[_SECONDS].item())

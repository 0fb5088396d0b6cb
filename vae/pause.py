"""Pausing a run in the middle of an epoch, and resuming it there.

Between two epochs a state holds weights, optimizer, average and two counters (:mod:`vae.state`). In the middle of an
epoch it also holds the state of torch's generators and the values of the steps so far, which the epoch's row needs.
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

    Asked = Callable[[], bool]  # returns True if the run is to pause; called after every step

_STEPS = "epoch/"  # prefix of the names of the values of the steps
_SECONDS = "epoch_seconds"
_GENERATOR = "generator"  # torch's generator on the CPU
_DEVICES = "generator_of_device"


class Paused(Exception):
    """Raised when a run has paused between two steps because ``pause()`` returned True.

    ``state`` is the state to resume from. Its tensors are live, so save it before anything else.
    """

    def __init__(self, state: TrainState) -> None:
        """Make a message that names the step and the epoch of ``state``."""
        super().__init__(f"paused after step {state.step}, in epoch {state.epoch + 1}")
        self.state = state


@dataclass(frozen=True)
class Begun:
    """The steps of an epoch before a pause: their values, in the form of ``vae.run.read``, and their time in seconds."""

    by_step: dict[str, Tensor] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def steps(self) -> int:
        """Return the number of these steps."""
        return len(next(iter(self.by_step.values()), ()))

    def followed_by(self, by_step: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the values of these steps followed by those of ``by_step``."""
        return {name: torch.cat([self.by_step[name], v]) if self.by_step else v for name, v in by_step.items()}


def paused(run: Run, begun: Begun, device: torch.device) -> Paused:
    """Return the exception to raise after a step of ``run``. ``begun`` holds the steps of the epoch so far."""
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
    """Return the steps of the next epoch that ``state`` already has, and restore torch's generators from it."""
    if state is None or not in_mid_epoch(state):
        return Begun()
    torch.set_rng_state(state.tensors[_GENERATOR].cpu())
    if _DEVICES in state.tensors and device.type == "cuda":
        torch.cuda.set_rng_state(state.tensors[_DEVICES].cpu(), device)
    steps = {name.removeprefix(_STEPS): v.clone() for name, v in state.tensors.items() if name.startswith(_STEPS)}
    return Begun(steps, state.tensors[_SECONDS].item())

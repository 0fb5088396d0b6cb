"""The input and the output of an objective, and the protocols that it can implement."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from vae.model import VAE, Terms
    from vae.optimizers import OptimizerConfig


class Progress(NamedTuple):
    """The position of a run. Schedules depend on nothing else, so there is no scheduler state to save."""

    step: int  # optimizer steps done, from 0
    steps_per_epoch: int
    total_steps: int


@dataclass(frozen=True)
class Batch:
    """The input of an objective: the terms of a batch, and what they were computed from."""

    model: VAE
    terms: Terms
    condition: Tensor | None  # [B, K]
    progress: Progress
    examples: int  # N, the number of training examples
    adversary: nn.Module | None = None
    settings: Mapping[str, float | Tensor] = field(
        default_factory=dict
    )  # of the objective that is trained, for this step

    def settings_of(self, objective: Scheduled) -> Mapping[str, float | Tensor]:
        """Return the settings of ``objective`` for this step.

        Inside a captured CUDA graph they are scalar tensors on the device, because a Python number would keep its value
        from capture time (``vae.fast.recorded``).
        """
        return {**objective.settings_at(self.progress), **self.settings}


@dataclass(frozen=True)
class Loss:
    """The output of an objective. ``total`` is minimised, in nats per example.

    ``terms`` are further scalars of the batch. Their averages over the epoch go into the row as ``train/<name>``.
    """

    total: Tensor
    terms: dict[str, Tensor] = field(default_factory=dict)


class Objective(Protocol):
    """The interface between the training loop and an objective's config. A user's own objective implements it too."""

    @property
    def samples(self) -> int:
        """Return the number of draws of z for each example."""

    @property
    def importance_weighted(self) -> bool:
        """Return True if the objective is another bound than the ELBO, so that models are ranked by ``val/nll_iwae``."""

    @property
    def posteriors(self) -> tuple[str, ...]:
        """Return the kinds of posterior that the objective is defined for."""

    def loss(self, batch: Batch) -> Loss:
        """Return the loss of a batch."""

    def annealing_epochs(self, epochs: int) -> int:
        """Return the number of epochs, in a run of ``epochs``, before which the run must not be stopped early."""

    def cycle_epochs(self, epochs: int) -> float | None:
        """Return the length of a cycle in epochs; None without a cycle. Runs compare only at the ends of cycles."""


class Scheduled(Protocol):
    """The additional interface of an objective whose settings change from step to step."""

    def settings_at(self, progress: Progress) -> dict[str, float]:
        """Return the settings by name for the step at ``progress``. The row holds those of the last step as ``train/<name>``."""


class Adversarial(Protocol):
    """The additional interface of an objective that trains an adversary against the model."""

    @property
    def optimizer(self) -> OptimizerConfig:
        """Return the config of the adversary's optimizer."""

    def adversary(self, latent_size: int) -> nn.Module:
        """Return the network, with starting weights drawn from torch's generator."""

    def adversary_loss(self, batch: Batch) -> Tensor:
        """Return the loss of the adversary, which is ``batch.adversary``. It is minimised after each step of the model."""

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
    """A batch as the model sees it: its terms, and what they came from."""

    model: VAE
    terms: Terms
    condition: Tensor | None
    progress: Progress
    examples: int  # N, the number of training examples
    adversary: nn.Module | None = None
    settings: Mapping[str, float | Tensor] = field(default_factory=dict)  # those of the training loop's objective

    def settings_of(self, objective: Scheduled) -> Mapping[str, float | Tensor]:
        """Return the settings of ``objective`` for this step, as scalars on the device where the step is recorded.

        There numbers would ever be those of the step that was recorded (``vae.fast.recorded``).
        """
        return {**objective.settings_at(self.progress), **self.settings}


@dataclass(frozen=True)
class Loss:
    """``total``: what is minimised, nats per example. ``terms`` go into the row as ``train/<name>``.

    Terms are scalars of this batch and averaged over the epoch.
    """

    total: Tensor
    terms: dict[str, Tensor] = field(default_factory=dict)


class Objective(Protocol):
    """The interface between the training loop and an objective's config, also a user's own."""

    @property
    def samples(self) -> int:
        """Draws of z for each example."""

    @property
    def importance_weighted(self) -> bool:
        """True if the objective is another bound than the ELBO, so that models are ranked by ``val/nll_iwae``."""

    @property
    def posteriors(self) -> tuple[str, ...]:
        """The kinds of posterior that it makes sense with."""

    def loss(self, batch: Batch) -> Loss:
        """The loss of a batch."""

    def annealing_epochs(self, epochs: int) -> int:
        """Epochs of a run of ``epochs`` before it may be judged."""

    def cycle_epochs(self, epochs: int) -> float | None:
        """The length of a cycle, at whose ends alone runs compare; None where nothing cycles."""


class Scheduled(Protocol):
    """The additional interface of an objective whose settings change from step to step."""

    def settings_at(self, progress: Progress) -> dict[str, float]:
        """Return the settings by name for the step at ``progress``. The row holds those of the last step as ``train/<name>``."""


class Adversarial(Protocol):
    """The additional interface of an objective that trains an adversary against the model."""

    @property
    def optimizer(self) -> OptimizerConfig:
        """The optimizer of the adversary."""

    def adversary(self, latent_size: int) -> nn.Module:
        """The network, drawn from torch's generator."""

    def adversary_loss(self, batch: Batch) -> Tensor:
        """Return the loss of the adversary, which is minimised after each step of the model; ``batch.adversary`` is the network."""

"""train(): one training run, as a generator of epoch results.

Read :class:`TrainingStep` for the mathematics of one step, and :func:`train` for the loop around it.
"""

from __future__ import annotations

import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, cast

import torch

from vae.corruption import NoCorruption
from vae.fast.training import compiled, launcher
from vae.objectives.loss import Batch
from vae.pause import Begun, Paused, paused, take_up
from vae.run import EpochResult, Steps, begin, build, finished_epoch, read, watched

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from vae.data import TrainingData
    from vae.objectives.loss import Adversarial
    from vae.pause import Asked
    from vae.run import Run
    from vae.state import TrainState
    from vae.train_config import TrainConfig

__all__ = ["EpochResult", "Paused", "build", "train"]


def train(
    config: TrainConfig,
    data: TrainingData,
    resume: TrainState | None = None,
    device: torch.device | str = "cpu",
    pause: Asked | None = None,
) -> Iterator[EpochResult]:
    """Train ``config`` on ``data``, and yield the result of every epoch.

    ``resume`` is the state after any epoch, or of a pause. A resumed run equals the uninterrupted one, bit for bit on the
    CPU with the same number of threads. Torch's global generator is reseeded at every epoch.

    ``pause`` is called after every step except an epoch's last. If it returns True, the run stops there.

    A loss, gradient or weight that is not finite ends the run. The last result then has ``diverged`` set, which names
    the step.

    Raises:
        ConfigError: The parts do not fit the data.
        StateError: ``resume`` is of another configuration.
        Paused: ``pause`` returned True. The exception holds the state to resume from.

    """
    device = torch.device(device)
    run = begin(config, data, resume, device)
    launch = launcher(TrainingStep(run, device), [run], device)
    while run.epoch < config.epochs:
        started = time.perf_counter()
        # One seed for each (run, epoch): the order, noise and dropout of an epoch do not depend on earlier epochs.
        torch.manual_seed(run.noise_seed)
        begun, resume = take_up(resume, device), None
        values = watched()
        run.model.train()
        batches = run.order(device).split(config.batch_size)
        schedule = [run.schedule(run.step + ahead) for ahead in range(len(batches) - begun.steps)]
        with launch.stream():
            rows = launch.settings(schedule)
            for done, (index, row) in enumerate(zip(batches[begun.steps :], rows, strict=True), start=begun.steps + 1):
                for name, value in launch.take(index, row).items():
                    values.setdefault(name, []).append(value)
                run.step += 1
                if pause is not None and done < len(batches) and pause():
                    begun = Begun(begun.followed_by(read(values)), begun.seconds + time.perf_counter() - started)
                    raise paused(run, begun, device)
            by_step = begun.followed_by(read(values))
        last = run.progress._replace(step=run.step - 1)
        steps = Steps(
            by_step,
            [len(index) for index in batches],
            run.settings(last),
            run.learning_rate(last),
            seconds=begun.seconds + time.perf_counter() - started,
        )
        with finished_epoch(run, steps) as result:
            yield result
        if result.diverged is not None:
            return


class TrainingStep:
    """One optimizer step of a run: the terms of a batch, the objective's loss, its gradient, and the update."""

    def __init__(self, run: Run, device: torch.device) -> None:
        config = run.config
        self.run = run
        self.device = device
        self.weights: list[Tensor] = [*run.parameters]
        self.names = tuple(run.settings(run.progress))  # of the objective's settings that change from step to step
        self.terms = compiled(run.model) if config.compile else run.model.terms
        bfloat16 = config.precision == "bfloat16"
        self.autocast = torch.autocast(device.type, torch.bfloat16) if bfloat16 else nullcontext()
        self.corrupts = not isinstance(config.corruption, NoCorruption)

    def __call__(self, index: Tensor, settings: Sequence[float] | Tensor) -> dict[str, Tensor]:
        """Take one step on the training examples at ``index`` [B]; return scalars by name for the row.

        ``settings`` are those of ``Run.schedule``. Nothing here reads a value back, so a GPU never waits.
        """
        run, config, model, pixels = self.run, self.run.config, self.run.model, self.run.examples.training
        learning_rate, forgotten, *scheduled = settings

        x = pixels.batch(index)
        condition = model.condition(x, pixels.labels.index_select(0, index))
        seen = config.corruption.apply(x) if self.corrupts else None
        noise = torch.randn((config.objective.samples, len(index), config.latent_size), device=self.device)
        with self.autocast:
            terms = self.terms(x, condition, noise, seen)
        opponent = None if run.adversary is None else run.adversary[0]
        by_name = dict(zip(self.names, scheduled, strict=True))
        batch = Batch(model, terms, condition, run.progress, len(pixels), opponent, by_name)
        loss = config.objective.loss(batch)
        values = {"loss": loss.total.detach(), "reconstruction": terms.reconstruction.detach().mean()}
        if model.has_density:
            values["kl"] = terms.kl.detach().sum() / len(index)

        run.optimizer.zero_grad()
        loss.total.backward()
        if config.gradient_clip is not None:
            values["gradient_norm"] = torch.nn.utils.clip_grad_norm_(run.parameters, config.gradient_clip)
        for group in run.optimizer.param_groups:
            group["lr"] = learning_rate
        run.optimizer.step()
        run.average(self.weights, forgotten)

        if run.adversary is not None:
            values["adversary_loss"] = self._train_adversary(*run.adversary, batch)
        return values | {name: term.detach() for name, term in loss.terms.items()}

    def _train_adversary(self, network: torch.nn.Module, optimizer: torch.optim.Optimizer, batch: Batch) -> Tensor:
        """Take one step of the objective's adversary on ``batch``; return its loss, a scalar."""
        objective = cast("Adversarial", self.run.config.objective)
        network.zero_grad()  # The backward pass of the model's loss has left gradients here.
        loss = objective.adversary_loss(batch)
        loss.backward()
        optimizer.step()
        return loss.detach()

"""train(): one training run, as a generator of epoch results. The step is inline, in the order it happens."""

from __future__ import annotations

import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, cast

import torch

from vae.corruption import NoCorruption
from vae.fast.recorded import Recorded, why_not_recorded
from vae.objectives.loss import Batch
from vae.pause import Begun, Paused, paused, take_up
from vae.run import EpochResult, Steps, begin, build, compiled, finished_epoch, read, watched

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from torch import Tensor

    from vae.data import TrainingData
    from vae.objectives.loss import Adversarial
    from vae.pause import Asked
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
    """Train ``config`` on ``data``, yielding after every epoch.

    A run resumed from the state of any epoch, or of a pause, equals the uninterrupted one: bit for bit on the CPU with
    the same number of threads. Torch's global generator is reseeded at every epoch. A loss, gradient or weight that is
    not finite ends the run: the last result has ``diverged`` set, with the step.

    ``pause``: asked after every step but an epoch's last. Where it says so the run is left there.

    Raises:
        ConfigError: the parts don't fit the data.
        StateError: ``resume`` is of another configuration.
        Paused: as ``pause`` asked, with the state to go on from.

    """
    device = torch.device(device)
    run = begin(config, data, resume, device)
    model, parameters, optimizer, adversary = run.model, run.parameters, run.optimizer, run.adversary
    weights: list[Tensor] = [*parameters]
    names = tuple(run.settings(run.progress))
    adversarial = None if adversary is None else cast("Adversarial", config.objective)
    pixels = run.examples.training
    terms_of = compiled(model) if config.compile else model.terms
    autocast = torch.autocast(device.type, torch.bfloat16) if config.precision == "bfloat16" else nullcontext()
    clean = isinstance(config.corruption, NoCorruption)

    def step(index: Tensor, schedule: Sequence[float] | Tensor) -> dict[str, Tensor]:
        """One step on the examples at ``index``; what the row is made of. Nothing waits for a GPU here.

        ``schedule``: learning rate, what the average forgets, the objective's settings.
        """
        learning_rate, forgotten, *settings = schedule
        x = pixels.batch(index)
        condition = model.condition(x, pixels.labels.index_select(0, index))
        seen = None if clean else config.corruption.apply(x)
        noise = torch.randn((config.objective.samples, len(index), config.latent_size), device=device)
        with autocast:
            terms = terms_of(x, condition, noise, seen)
        opponent = None if adversary is None else adversary[0]
        scheduled = dict(zip(names, settings, strict=True))
        batch = Batch(model, terms, condition, run.progress, len(pixels), opponent, scheduled)
        loss = config.objective.loss(batch)
        found = {"loss": loss.total.detach(), "reconstruction": terms.reconstruction.detach().mean()}
        if model.has_density:
            found["kl"] = terms.kl.detach().sum() / len(index)
        optimizer.zero_grad()
        loss.total.backward()
        if config.gradient_clip is not None:
            found["gradient_norm"] = torch.nn.utils.clip_grad_norm_(parameters, config.gradient_clip)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate
        optimizer.step()
        run.average(weights, forgotten)
        if adversarial is not None and adversary is not None:
            opponent, its_optimizer = adversary
            opponent.zero_grad()  # of what the model's loss left there
            adversary_loss = adversarial.adversary_loss(batch)
            adversary_loss.backward()
            its_optimizer.step()
            found["adversary_loss"] = adversary_loss.detach()
        return found | {name: term.detach() for name, term in loss.terms.items()}

    recorded = Recorded(step, device) if why_not_recorded(run, device) is None else None
    take: Callable[..., Mapping[str, Tensor]] = recorded or step
    while run.epoch < config.epochs:
        started = time.perf_counter()
        # One seed per (run, epoch): order, noise and dropout of an epoch need nothing from the epochs before.
        torch.manual_seed(run.noise_seed)
        begun, resume = take_up(resume, device), None
        values = watched()
        model.train()
        batches = run.order(device).split(config.batch_size)
        schedule = [run.schedule(run.step + ahead) for ahead in range(len(batches) - begun.steps)]
        with nullcontext() if recorded is None else recorded.stream_of_its_own():
            rows: Sequence[object] = schedule if recorded is None else torch.tensor(schedule, device=device).unbind()
            for done, (index, row) in enumerate(zip(batches[begun.steps :], rows, strict=True), start=begun.steps + 1):
                for name, value in take(index, row).items():
                    values.setdefault(name, []).append(value)
                run.step += 1
                if pause is not None and done < len(batches) and pause():
                    begun = Begun(begun.followed_by(read(values)), begun.seconds + time.perf_counter() - started)
                    raise paused(run, begun, device)
            by_step = begun.followed_by(read(values))
        learning_rate, _, *settings = schedule[-1]
        steps = Steps(
            by_step,
            [len(index) for index in batches],
            dict(zip(names, settings, strict=True)),
            learning_rate,
            seconds=begun.seconds + time.perf_counter() - started,
        )
        with finished_epoch(run, steps) as result:
            yield result
        if result.diverged is not None:
            return

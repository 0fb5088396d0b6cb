"""A training run around its steps: building the model and the optimizer before them, and making the row after them."""

from __future__ import annotations

import math
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from vae import seeds
from vae.classifier import accuracy, classifier_of, grey, samples_as_asked
from vae.config import ConfigError
from vae.data.pixels import pixels_of
from vae.data.support import check_support
from vae.evaluate import held_out_metrics
from vae.external_metric import external_metrics
from vae.measure import measure_of
from vae.model import VAE, initialise
from vae.networks.normalisation import has_batch_norm
from vae.objectives.loss import Progress
from vae.optimizers import build_optimizer, rate_factor
from vae.priors.vamp import VampPrior
from vae.serialization import config_hash
from vae.state import StateError, TrainState, capture, restore

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from vae.data import TrainingData
    from vae.data.pixels import Pixels
    from vae.measure import Measure
    from vae.objectives.loss import Adversarial
    from vae.train_config import TrainConfig


Row = dict[str, Any]  # the metrics of one epoch, as JSON values by name


@dataclass(frozen=True)
class EpochResult:
    """The result of one epoch.

    Attributes:
        row: The metrics by name (``split/name``, likelihood terms in nats per example), with ``epoch`` from 1, ``step``
            and ``measure``.
        state: The run after this epoch. Its tensors are live until the next epoch begins.
        model: The model with the weights that were evaluated.
        examples: The validation examples, or the training examples if none are held out.
        diverged: The reason why the run ends here, or None.

    """

    row: Row
    state: TrainState
    model: VAE
    examples: Pixels
    diverged: str | None = None


@dataclass(frozen=True)
class Examples:
    """The examples that a run is trained and evaluated on. Runs with equal ``data`` and ``eval`` can share them."""

    training: Pixels
    validation: Pixels | None
    classifier: nn.Module | None
    classifier_accuracy: float | None


@dataclass(frozen=True)
class Steps:
    """The results of an epoch's steps."""

    by_step: dict[str, Tensor]  # values by name, [steps], float64 on the CPU
    sizes: list[int]  # the number of examples of each step
    settings: dict[str, float]  # the objective's settings at the last step
    learning_rate: float  # at the last step
    seconds: float


def watched() -> dict[str, list[Tensor]]:
    """Return an empty list for each value of a step. :func:`finished_epoch` searches them in this order for NaN and infinity."""
    return {"reconstruction": [], "kl": [], "loss": [], "gradient_norm": []}


def read(values: dict[str, list[Tensor]]) -> dict[str, Tensor]:
    """Return the values of an epoch's steps on the CPU, [steps] each.

    Call it once an epoch, because an ``.item()`` in the loop would make a GPU wait at every step.
    """
    return {name: torch.stack(by_step).double().cpu() for name, by_step in values.items() if by_step}


@dataclass
class Run:
    """A training run after ``epoch`` whole epochs and ``step`` optimizer steps."""

    config: TrainConfig
    identity: str
    model: VAE
    parameters: list[nn.Parameter]
    optimizer: torch.optim.Optimizer
    ema: list[Tensor] | None
    adversary: tuple[nn.Module, torch.optim.Optimizer] | None
    examples: Examples
    measure: Measure | None
    epoch: int
    step: int

    @property
    def steps_per_epoch(self) -> int:
        """Return the number of optimizer steps of an epoch. The last batch may be smaller."""
        return math.ceil(len(self.examples.training) / self.config.batch_size)

    @property
    def progress(self) -> Progress:
        """Return the position of the run, for schedules."""
        return Progress(self.step, self.steps_per_epoch, self.config.epochs * self.steps_per_epoch)

    def learning_rate(self, progress: Progress) -> float:
        """Return the optimizer's learning rate for the step at ``progress``."""
        return self.config.optimizer.lr * rate_factor(self.config.schedule, **progress._asdict())

    def schedule(self, step: int) -> list[float]:
        """Return the numbers that step ``step``, counted from 0, needs.

        They are the learning rate, the share of the average that is replaced, and the objective's :meth:`settings`.
        """
        progress = self.progress._replace(step=step)
        return [self.learning_rate(progress), self.forgets(step + 1), *self.settings(progress).values()]

    def order(self, device: torch.device) -> Tensor:
        """Return the indices of the training examples in the order of the next epoch, [N]."""
        stream = seeds.generator(self.config.seed, "order", self.epoch + 1)
        return torch.randperm(len(self.examples.training), generator=stream).to(device)

    @property
    def noise_seed(self) -> int:
        """Return the seed of all random draws of the next epoch. It does not depend on the epochs before."""
        return seeds.derive(self.config.seed, "noise", self.epoch + 1)

    def state(self) -> TrainState:
        """Return the state of the run. Its tensors are live, see :class:`vae.state.TrainState`."""
        return capture(
            config_hash=self.identity,
            epoch=self.epoch,
            step=self.step,
            model=self.model,
            optimizer=self.optimizer,
            ema=self.ema,
            adversary=self.adversary,
        )

    def settings(self, progress: Progress) -> dict[str, float]:
        """Return the objective's settings for the step at ``progress``, by name; see ``objectives.loss.Scheduled``."""
        settings_at = getattr(self.config.objective, "settings_at", None)
        return {} if settings_at is None else settings_at(progress)

    def forgets(self, step: int) -> float:
        """Return the share of the average that step ``step``, counted from 1, replaces; 0 if the run keeps no average."""
        if self.config.ema_decay is None:
            return 0.0
        # At first the decay is smaller than ``ema_decay``, so that the average soon forgets its start: (1+t)/(10+t).
        return 1.0 - min(self.config.ema_decay, (1 + step) / (10 + step))

    def average(self, weights: list[Tensor], share: float | Tensor) -> None:
        """Replace ``share`` of the average by ``weights``, the parameters after a step."""
        if self.ema is not None:
            # Torch's foreach function does not take one scalar tensor for all weights.
            shares = [share] * len(weights) if isinstance(share, torch.Tensor) else share
            torch._foreach_lerp_(self.ema, weights, shares)


def build(config: TrainConfig, data: TrainingData, device: torch.device | str = "cpu") -> VAE:
    """Return the model of ``config`` for ``data``, with the starting weights of ``config.seed``.

    Raises:
        ConfigError: The parts do not fit the data.

    """
    torch.manual_seed(seeds.derive(config.seed, "weights"))
    model = VAE(config, shape=data.shape, levels=data.levels, num_classes=data.num_classes)
    check_support(config, data.train, data.levels)

    def pixels() -> Pixels:  # Called only where it is needed, because reading a large set takes a while.
        return pixels_of(data.train, config, data.levels, torch.device("cpu"), held_out=False)

    initialise(model, config.initialisation, lambda: pixels().mean())
    if isinstance(model.prior, VampPrior):
        chosen = torch.randperm(len(data.train), generator=seeds.generator(config.seed, "pseudo-inputs"))
        model.prior.start_from(pixels().batch(chosen[: len(model.prior.pseudo_inputs)]))
    if model.labelled:
        counts = torch.bincount(data.train.labels, minlength=data.num_classes).double()
        model.label_log_prior.copy_((counts / counts.sum()).log())
    return model.to(device)


def examples_of(config: TrainConfig, data: TrainingData, device: torch.device) -> Examples:
    """Return the splits of ``data`` in the form that ``config`` asks for, on ``device``, and the classifier if it needs one."""
    training = pixels_of(data.train, config, data.levels, device, held_out=False)
    validation, classifier, classifier_accuracy = None, None, None
    if data.validation is not None:
        check_support(config, data.validation, data.levels)
        validation = pixels_of(data.validation, config, data.levels, device, held_out=True)
    if config.eval.classified_samples > 0 and validation is not None:
        classifier = classifier_of(data, config.data, config.eval.seed, device)
        classifier_accuracy = accuracy(classifier, grey(data, config.data, "validation", config.eval.seed))
    return Examples(training, validation, classifier, classifier_accuracy)


def begin(
    config: TrainConfig,
    data: TrainingData,
    resume: TrainState | None,
    device: torch.device,
    examples: Examples | None = None,
) -> Run:
    """Return a run of ``config`` before its first step, or after the last step of ``resume``.

    Raises:
        ConfigError: The parts do not fit the data.
        StateError: ``resume`` is of another configuration.

    """
    model = build(config, data, device)
    parameters = list(model.parameters())
    optimizer = build_optimizer(config.optimizer, parameters)
    ema = None if config.ema_decay is None else [p.detach().clone() for p in parameters]
    # Some objectives train a network of their own against the model, such as FactorVAE's discriminator.
    adversary: tuple[nn.Module, torch.optim.Optimizer] | None = None
    if hasattr(config.objective, "adversary"):
        adversarial = cast("Adversarial", config.objective)
        torch.manual_seed(seeds.derive(config.seed, "adversary"))
        opponent = adversarial.adversary(config.latent_size).to(device)
        adversary = opponent, build_optimizer(adversarial.optimizer, opponent.parameters())
    identity = config_hash(config)
    epoch = step = 0
    if resume is not None:
        if resume.config_hash != identity:
            raise StateError(f"the state is of configuration {resume.config_hash[:12]}, not of {identity[:12]}")
        restore(resume, model, optimizer, ema, adversary)
        epoch, step = resume.epoch, resume.step
    examples = examples or examples_of(config, data, device)
    check_batches(config, model, len(examples.training))
    return Run(
        config=config,
        identity=identity,
        model=model,
        parameters=parameters,
        optimizer=optimizer,
        ema=ema,
        adversary=adversary,
        examples=examples,
        measure=None if data.validation is None else measure_of(config, data.validation, levels=data.levels),
        epoch=epoch,
        step=step,
    )


def check_batches(config: TrainConfig, model: nn.Module, count: int) -> None:
    """Refuse batch normalisation if ``count`` training examples leave a batch of one example, which has no variance.

    Raises:
        ConfigError: A batch has one example. The message names the next batch size that fits.

    """
    if not has_batch_norm(model) or (config.batch_size > 1 and count % config.batch_size != 1):
        return
    fits = next((size for size in range(config.batch_size + 1, count + 1) if count % size != 1), None)
    remedy = "give it more examples, or another normalisation" if fits is None else f"the next that fits is {fits}"
    raise ConfigError(
        f"batch_size must not leave a batch of one example with normalisation 'batch', got {config.batch_size} "
        f"for {count} examples; {remedy}"
    )


@contextmanager
def finished_epoch(run: Run, steps: Steps) -> Iterator[EpochResult]:
    """Evaluate a run after the steps of an epoch, and yield the result.

    Inside the context the model has the weights that were evaluated. After it the model has the raw weights again.
    """
    began = time.perf_counter()
    model, config, scored = run.model, run.config, run.examples
    count = len(scored.training)
    run.epoch += 1
    weight = torch.tensor(steps.sizes, dtype=torch.float64) / count
    row: Row = {
        "epoch": run.epoch,
        "step": run.step,
        "model/parameters": sum(parameter.numel() for parameter in run.parameters),
        **{f"train/{name}": float(values @ weight) for name, values in steps.by_step.items()},
        "train/learning_rate": steps.learning_rate,
        **{f"train/{name}": value for name, value in steps.settings.items()},
    }
    state = run.state()
    diverged = _what_diverged(steps.by_step, run.parameters, first_step=run.step - len(steps.sizes) + 1)
    with _evaluated_weights(run.parameters, run.ema):
        if diverged is None and scored.validation is not None and run.measure is not None:
            scores = held_out_metrics(model, scored.validation, config.eval, run.measure, config.corruption)
            row |= {f"val/{name}": value for name, value in scores.items()}
            own = external_metrics(config.metrics, model, scored.validation, config.eval.seed)
            row |= {f"val/{name}": value for name, value in own.items()}
            if scored.classifier is not None:
                asked = {"count": config.eval.classified_samples, "seed": config.eval.seed}
                row["val/samples_as_asked"] = samples_as_asked(model, scored.classifier, **asked)
                row["val/classifier_accuracy"] = scored.classifier_accuracy
            row["measure"] = str(run.measure)
            if model.has_density:
                row["kl_estimate"] = "closed_form" if model.prior.closed_form else "monte_carlo"
            row["weights"] = "raw" if run.ema is None else "ema"
            judged = cast("float", scores["elbo" if model.has_density else "reconstruction"])
            if not math.isfinite(judged):
                # Weights can be finite and still too large to be evaluated. This happens mostly with one step an epoch.
                name = "ELBO" if model.has_density else "reconstruction"
                diverged = f"the held-out {name} is {judged} after step {run.step}"
        row["time/train_seconds"] = steps.seconds
        row["time/evaluation_seconds"] = time.perf_counter() - began
        row["time/examples_per_second"] = count / steps.seconds
        examples = scored.validation or scored.training
        yield EpochResult(row=row, state=state, model=model, examples=examples, diverged=diverged)


def _what_diverged(by_step: dict[str, Tensor], parameters: list[nn.Parameter], first_step: int) -> str | None:
    """Return a message that names the first value of an epoch that is not finite, and its step; None if all are finite.

    If gradients are clipped, a gradient that is not finite shows in the norm. Else it shows in the next step's loss or,
    after an epoch's last step, in the weights. A norm at every step would take 4 % of the time of a small MLP.
    """
    bad = [(int(where[0]), name) for name, v in by_step.items() if len(where := (~v.isfinite()).nonzero())]
    if bad:
        step, name = min(bad, key=lambda found: found[0])
        return f"{name} is {by_step[name][step].item()} at step {first_step + step}"
    # One value is read for all weights, because each value that is read makes a GPU wait.
    if not torch.stack([p.isfinite().all() for p in parameters]).all():
        return f"a weight is not finite after step {first_step + len(by_step['loss']) - 1}"
    return None


@contextmanager
def _evaluated_weights(parameters: list[nn.Parameter], ema: list[Tensor] | None) -> Iterator[None]:
    """Put the averaged weights, if the run keeps them, into the model inside the context, and the raw ones back after it."""
    if ema is None:
        yield
        return
    raw = [p.data for p in parameters]
    for parameter, average in zip(parameters, ema, strict=True):
        parameter.data = average
    try:
        yield
    finally:
        for parameter, own in zip(parameters, raw, strict=True):
            parameter.data = own

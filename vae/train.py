"""train(): one training run, as a generator of epoch results. The step is inline, in the order it happens."""

from __future__ import annotations

import math
import time
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from vae import seeds
from vae.classifier import accuracy, classifier_of, grey, samples_as_asked
from vae.config import ConfigError
from vae.corruption import NoCorruption
from vae.data.pixels import pixels_of
from vae.data.support import check_support
from vae.evaluate import held_out_metrics
from vae.measure import measure_of
from vae.model import VAE, initialise
from vae.networks.normalisation import has_batch_norm
from vae.objectives.loss import Batch, Progress
from vae.optimizers import build_optimizer, rate_factor
from vae.priors.vamp import VampPrior
from vae.serialization import config_hash
from vae.state import StateError, TrainState, capture, restore

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from vae.data import TrainingData
    from vae.data.pixels import Pixels
    from vae.objectives.loss import Adversarial
    from vae.train_config import TrainConfig


@dataclass(frozen=True)
class EpochResult:
    """What one epoch yields.

    ``row``: the metrics by name (``split/name``, nats per example), with ``epoch`` from 1, ``step`` and
    ``measure``. ``state``: the run after this epoch, live until the next begins. ``model``: with the weights
    that were evaluated. ``examples``: what it was evaluated on, or trained on where nothing is held out.
    ``diverged``: why the run ends here, or None.
    """

    row: dict[str, Any]
    state: TrainState
    model: VAE
    examples: Pixels
    diverged: str | None = None


def build(config: TrainConfig, data: TrainingData, device: torch.device | str = "cpu") -> VAE:
    """The model of ``config`` for ``data``, with the starting weights of ``config.seed``."""
    torch.manual_seed(seeds.derive(config.seed, "weights"))
    model = VAE(config, shape=data.shape, levels=data.levels, num_classes=data.num_classes)
    check_support(config, data.train, data.levels)
    pixels = pixels_of(data.train, config, data.levels, torch.device("cpu"), held_out=False)
    initialise(model, config.initialisation, pixels.mean())
    if isinstance(model.prior, VampPrior):
        chosen = torch.randperm(len(pixels), generator=seeds.generator(config.seed, "pseudo-inputs"))
        model.prior.start_from(pixels.batch(chosen[: len(model.prior.pseudo_inputs)]))
    if model.labelled:
        counts = torch.bincount(data.train.labels, minlength=data.num_classes).double()
        model.label_log_prior.copy_((counts / counts.sum()).log())
    return model.to(device)


def train(
    config: TrainConfig,
    data: TrainingData,
    resume: TrainState | None = None,
    device: torch.device | str = "cpu",
) -> Iterator[EpochResult]:
    """Train ``config`` on ``data``, yielding after every epoch.

    A run resumed from the state of any epoch equals the uninterrupted one: bit for bit on the CPU with the same
    number of threads. Torch's global generator is reseeded at every epoch. A loss, gradient or weight that is
    not finite ends the run: the last result has ``diverged`` set, with the step.

    Raises:
        ConfigError: the parts don't fit the data.
        StateError: ``resume`` is of another configuration.

    """
    device = torch.device(device)
    model = build(config, data, device)
    parameters = list(model.parameters())
    weights: list[Tensor] = [*parameters]
    size = sum(parameter.numel() for parameter in parameters)
    optimizer = build_optimizer(config.optimizer, parameters)
    ema = None if config.ema_decay is None else [p.detach().clone() for p in parameters]
    # Some objectives train a network of their own against the model (FactorVAE's discriminator).
    adversarial = cast("Adversarial", config.objective) if hasattr(config.objective, "adversary") else None
    adversary: tuple[nn.Module, torch.optim.Optimizer] | None = None
    if adversarial is not None:
        torch.manual_seed(seeds.derive(config.seed, "adversary"))
        opponent = adversarial.adversary(config.latent_size).to(device)
        adversary = opponent, build_optimizer(adversarial.optimizer, opponent.parameters())
    identity = config_hash(config)
    step, first_epoch = 0, 1
    if resume is not None:
        if resume.config_hash != identity:
            raise StateError(f"the state is of configuration {resume.config_hash[:12]}, not of {identity[:12]}")
        restore(resume, model, optimizer, ema, adversary)
        step, first_epoch = resume.step, resume.epoch + 1

    pixels = pixels_of(data.train, config, data.levels, device, held_out=False)
    validation, measure = None, None
    if data.validation is not None:
        check_support(config, data.validation, data.levels)
        validation = pixels_of(data.validation, config, data.levels, device, held_out=True)
        measure = measure_of(config, data.validation, levels=data.levels)
    classifier = None
    if config.eval.classified_samples > 0 and validation is not None:
        classifier = classifier_of(data, config.data, config.eval.seed, device)
        classifier_accuracy = accuracy(classifier, grey(data, config.data, "validation", config.eval.seed))
    terms_of = torch.compile(model.terms) if config.compile else model.terms
    autocast = torch.autocast(device.type, torch.bfloat16) if config.precision == "bfloat16" else nullcontext()
    base_rate = config.optimizer.lr
    clean = isinstance(config.corruption, NoCorruption)
    if has_batch_norm(model) and (config.batch_size == 1 or len(pixels) % config.batch_size == 1):
        fits = next(size for size in range(config.batch_size + 1, len(pixels) + 2) if len(pixels) % size != 1)
        raise ConfigError(
            f"batch_size must not leave a batch of one example with normalisation 'batch', got {config.batch_size} "
            f"for {len(pixels)} examples; the next that fits is {fits}"
        )
    steps_per_epoch = math.ceil(len(pixels) / config.batch_size)
    total_steps = config.epochs * steps_per_epoch

    for epoch in range(first_epoch, config.epochs + 1):
        started = time.perf_counter()
        # One seed per (run, epoch): order, noise and dropout of an epoch need nothing from the epochs before.
        torch.manual_seed(seeds.derive(config.seed, "noise", epoch))
        order = torch.randperm(len(pixels), generator=seeds.generator(config.seed, "order", epoch)).to(device)
        losses, reconstructions, kls, norms, sizes = [], [], [], [], []
        others: dict[str, list[Tensor]] = {}
        settings: dict[str, float] = {}
        model.train()
        learning_rate = 0.0
        for index in order.split(config.batch_size):
            progress = Progress(step, steps_per_epoch, total_steps)
            learning_rate = base_rate * rate_factor(config.schedule, **progress._asdict())
            x = pixels.batch(index)
            condition = model.condition(x, pixels.labels[index])
            seen = None if clean else config.corruption.apply(x)
            noise = torch.randn((config.objective.samples, len(index), config.latent_size), device=device)
            with autocast:
                terms = terms_of(x, condition, noise, seen)
            batch = Batch(model, terms, condition, progress, len(pixels), None if adversary is None else adversary[0])
            loss = config.objective.loss(batch)
            settings = loss.settings
            optimizer.zero_grad()
            loss.total.backward()
            if config.gradient_clip is not None:
                norms.append(torch.nn.utils.clip_grad_norm_(parameters, config.gradient_clip))
            for group in optimizer.param_groups:
                group["lr"] = learning_rate
            optimizer.step()
            if adversarial is not None and adversary is not None:
                opponent, its_optimizer = adversary
                opponent.zero_grad()  # of what the model's loss left there
                adversary_loss = adversarial.adversary_loss(batch)
                adversary_loss.backward()
                its_optimizer.step()
                others.setdefault("adversary_loss", []).append(adversary_loss.detach())
            step += 1
            if ema is not None and config.ema_decay is not None:
                # The average forgets its start faster than ``decay`` allows at first: min(decay, (1+t)/(10+t)).
                decay = min(config.ema_decay, (1 + step) / (10 + step))
                torch._foreach_lerp_(ema, weights, 1.0 - decay)
            losses.append(loss.total.detach())
            reconstructions.append(terms.reconstruction.detach().mean())
            if model.has_density:
                kls.append(terms.kl.detach().sum() / len(index))
            for name, term in loss.terms.items():
                others.setdefault(name, []).append(term.detach())
            sizes.append(len(index))
        # Read once an epoch: an .item() in the loop would make a GPU wait for every step.
        weight = torch.tensor(sizes, dtype=torch.float64) / len(pixels)
        averaged = {"reconstruction": reconstructions, "kl": kls, "loss": losses, "gradient_norm": norms} | others
        by_step = {name: torch.stack(values).double().cpu() for name, values in averaged.items() if values}
        trained = time.perf_counter()

        row: dict[str, Any] = {
            "epoch": epoch,
            "step": step,
            "model/parameters": size,
            **{f"train/{name}": float(values @ weight) for name, values in by_step.items()},
            "train/learning_rate": learning_rate,
            **{f"train/{name}": value for name, value in settings.items()},
        }
        state = capture(
            config_hash=identity,
            epoch=epoch,
            step=step,
            model=model,
            optimizer=optimizer,
            ema=ema,
            adversary=adversary,
        )
        diverged = _what_diverged(by_step, parameters, first_step=step - len(sizes) + 1)
        with _evaluated_weights(parameters, ema):
            if diverged is None and validation is not None and measure is not None:
                scores = held_out_metrics(model, validation, config.eval, measure, config.corruption)
                row |= {f"val/{name}": value for name, value in scores.items()}
                if classifier is not None:
                    asked = {"count": config.eval.classified_samples, "seed": config.eval.seed}
                    row["val/samples_as_asked"] = samples_as_asked(model, classifier, **asked)
                    row["val/classifier_accuracy"] = classifier_accuracy
                row["measure"] = str(measure)
                if model.has_density:
                    row["kl_estimate"] = "closed_form" if model.prior.closed_form else "monte_carlo"
                row["weights"] = "raw" if ema is None else "ema"
                judged = "elbo" if model.has_density else "reconstruction"
                if not math.isfinite(scores[judged]):
                    # Weights can be finite and too large to be evaluated: with one step an epoch, most often.
                    name = "ELBO" if model.has_density else "reconstruction"
                    diverged = f"the held-out {name} is {scores[judged]} after step {step}"
            row["time/train_seconds"] = trained - started
            row["time/evaluation_seconds"] = time.perf_counter() - trained
            row["time/examples_per_second"] = len(pixels) / (trained - started)
            yield EpochResult(row=row, state=state, model=model, examples=validation or pixels, diverged=diverged)
        if diverged is not None:
            return


def _what_diverged(by_step: dict[str, Tensor], parameters: list[nn.Parameter], first_step: int) -> str | None:
    """What stopped being finite, and at which step: the first of an epoch's values by step that is not.

    A gradient that is not finite shows in the norm where gradients are clipped, else in the next step's loss or,
    after an epoch's last step, in the weights: a norm at every step would cost a small MLP 4 % of its time.
    """
    bad = [(int(where[0]), name) for name, v in by_step.items() if len(where := (~v.isfinite()).nonzero())]
    if bad:
        step, name = min(bad, key=lambda found: found[0])
        return f"{name} is {by_step[name][step].item()} at step {first_step + step}"
    if not all(bool(p.isfinite().all()) for p in parameters):
        return f"a weight is not finite after step {first_step + len(by_step['loss']) - 1}"
    return None


@contextmanager
def _evaluated_weights(parameters: list[nn.Parameter], ema: list[Tensor] | None) -> Iterator[None]:
    """The averaged weights in the model's place where an average is kept; the raw ones come back after."""
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

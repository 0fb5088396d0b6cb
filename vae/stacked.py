"""Several runs as one: K models of one shape, batched matrix products, each with its own seed, β, rate and optimizer.

A member is an ordinary :class:`vae.run.Run` whose weights are slices of the stack's. What differs from ``train`` is
the step alone: one gather, one forward and one backward pass for all. Each member has the data order and the noise
that it has alone, and is evaluated, saved and resumed as it is alone.
"""

from __future__ import annotations

import copy
import math
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from vae.corruption import NoCorruption
from vae.run import EpochResult, Steps, begin, examples_of, finished_epoch, read, watched
from vae.stackable import why_not
from vae.stacked_adam import StackedAdam, together

if TYPE_CHECKING:
    from collections.abc import Collection, Generator, Sequence

    from vae.data import TrainingData
    from vae.model import VAE
    from vae.objectives import Elbo
    from vae.run import Run
    from vae.state import TrainState
    from vae.train_config import TrainConfig

Results = dict[int, EpochResult]  # by position in the stack


def train_stacked(
    configs: Sequence[TrainConfig],
    data: TrainingData,
    resume: Sequence[TrainState | None] | None = None,
    device: torch.device | str = "cpu",
) -> Generator[Results, Collection[int] | None, None]:
    """Train all of ``configs`` on ``data`` in step, yielding after every epoch the results of those still training.

    Keys are positions in ``configs``. Positions that are sent in answer stop there: ``epochs.send({2})``. A member
    leaves after its last epoch, or when it diverges; the others don't notice. Members may be resumed from different
    epochs. ``time/train_seconds`` is a member's equal share of the stack's.

    Raises:
        ValueError: the configs can't be stacked, with the reason.
        ConfigError, StateError: as ``vae.train.train``.

    """
    device = torch.device(device)
    if (reason := why_not(configs, device.type)) is not None:
        raise ValueError(f"these configurations can't train as one stack: {reason}")
    states = [None] * len(configs) if resume is None else resume
    examples = examples_of(configs[0], data, device)
    runs = {
        position: begin(config, data, state, device, examples)
        for position, (config, state) in enumerate(zip(configs, states, strict=True))
    }
    runs = dict(sorted(runs.items(), key=lambda member: not _updated_together(member[1], device)))
    stack: _Stack | None = None
    while alive := {position: run for position, run in runs.items() if run.epoch < run.config.epochs}:
        if stack is None or stack.runs != list(alive.values()):
            stack = _Stack(list(alive.values()), device)
        all_steps = stack.epoch()
        with ExitStack() as opened:
            results = {
                position: opened.enter_context(finished_epoch(run, steps))
                for (position, run), steps in zip(alive.items(), all_steps, strict=True)
            }
            stopped = yield results
        ended = {position for position, result in results.items() if result.diverged is not None}
        runs = {position: run for position, run in alive.items() if position not in ended | set(stopped or ())}


class _Stack:
    """K runs that take their steps together; those whose optimizer is stacked as well come first.

    All weights are one table [K, P], a row a run, of which the stacked layers' weights and each run's own are slices.
    """

    def __init__(self, runs: list[Run], device: torch.device) -> None:
        self.runs = runs
        self.device = device
        self.generators = [torch.Generator(device) for _ in runs]
        self.weights = torch.stack([nn.utils.parameters_to_vector(run.parameters).detach() for run in runs])
        self.gradients = torch.zeros_like(self.weights)
        for run, weights, gradients in zip(runs, self.weights, self.gradients, strict=True):
            nn.utils.vector_to_parameters(weights, run.parameters)
            for parameter, gradient in zip(run.parameters, _slices(gradients, run.parameters), strict=True):
                parameter.grad = gradient.view_as(parameter)
        self.model = copy.deepcopy(runs[0].model)
        _stack_layers(self.model, [run.model for run in runs], self.generators)
        self.parameters = list(self.model.parameters())
        assert [each.shape[1:] for each in self.parameters] == [each.shape for each in runs[0].parameters]
        for parameter, weights in zip(self.parameters, _slices(self.weights, runs[0].parameters), strict=True):
            parameter.data = weights.view_as(parameter)
        stacked = sum(_updated_together(run, device) for run in runs)
        assert all(_updated_together(run, device) for run in runs[:stacked]), "those come first"
        self.adam = StackedAdam(runs[:stacked], self.weights[:stacked]) if stacked else None
        self.others = runs[stacked:]
        self.free_bits = torch.tensor([_objective(run).free_bits for run in runs], device=device)
        bounds = [run.config.gradient_clip for run in runs]
        self.clips = any(bound is not None for bound in bounds)
        self.bounds = torch.tensor([math.inf if bound is None else bound for bound in bounds], device=device)
        self.averages = _Averages(runs, self.weights)

    def epoch(self) -> list[Steps]:
        """One epoch of steps of every run; what each one's left behind."""
        started = time.perf_counter()
        runs, model, pixels = self.runs, self.model, self.runs[0].examples.training
        config = runs[0].config
        clean = isinstance(config.corruption, NoCorruption)
        for run, generator in zip(runs, self.generators, strict=True):
            generator.manual_seed(run.noise_seed)
        orders = torch.stack([run.order(self.device) for run in runs])
        values, sizes = watched(), list[int]()
        batches = orders.split(config.batch_size, dim=1)
        progress = [[run.progress._replace(step=run.step + done) for run in runs] for done in range(len(batches))]
        rates = [[run.learning_rate(its) for run, its in zip(runs, each, strict=True)] for each in progress]
        betas = [[_objective(run).beta_at(its) for run, its in zip(runs, each, strict=True)] for each in progress]
        # Once an epoch: a copy at every step would make a GPU wait.
        betas_there = torch.tensor(betas, device=self.device)
        moves = None if self.adam is None else self.adam.settings([each[: len(self.adam.runs)] for each in rates])
        forgotten = self.averages.rates(len(batches))
        model.train()
        for done, (batch, its_betas) in enumerate(zip(batches, betas_there, strict=True)):
            size = batch.shape[1]
            index = batch.reshape(-1)  # [K·B], member after member, as all that follows
            x = pixels.batch(index, self.generators)
            condition = model.condition(x, pixels.labels[index])
            seen = None if clean else self._corrupted(x)
            noise = x.new_empty((1, len(index), config.latent_size))
            for share, generator in zip(noise.chunk(len(runs), dim=1), self.generators, strict=True):
                share.normal_(generator=generator)
            reconstruction, kl = self._terms(x, condition, noise, seen)
            loss = reconstruction.mean(1) + its_betas * self._counted(kl)
            gradients = torch.autograd.grad(loss.sum(), self.parameters)
            torch.cat([each.flatten(1) for each in gradients], dim=1, out=self.gradients)
            if self.clips:
                values["gradient_norm"].append(self._clip())
            if self.adam is not None and moves is not None:
                self.adam.step(self.gradients[: len(self.adam.runs)], moves[done])
            for run, rate in zip(self.others, rates[done][len(runs) - len(self.others) :], strict=True):
                for group in run.optimizer.param_groups:
                    group["lr"] = rate
                run.optimizer.step()
            self.averages.move(forgotten[done])
            values["loss"].append(loss.detach())
            values["reconstruction"].append(reconstruction.detach().mean(1))
            values["kl"].append(kl.detach().sum((1, 2)) / size)
            sizes.append(size)
        for run in runs:
            run.step += len(batches)
        if self.adam is not None:
            self.adam.count()
        by_step = read(values)  # [steps, K]
        seconds = (time.perf_counter() - started) / len(runs)
        return [
            Steps(
                by_step={
                    name: each[:, k]
                    for name, each in by_step.items()
                    if name != "gradient_norm" or run.config.gradient_clip is not None
                },
                sizes=sizes,
                settings={"beta": betas[-1][k]},
                learning_rate=rates[-1][k],
                seconds=seconds,
            )
            for k, run in enumerate(runs)
        ]

    def _clip(self) -> Tensor:
        """``clip_grad_norm_`` of each member that has a bound; the norms before it, [K]."""
        norms: Tensor = torch.linalg.vector_norm(self.gradients, dim=1)
        self.gradients.mul_((self.bounds / (norms + 1e-6)).clamp(max=1).unsqueeze(1))
        return norms

    def _terms(self, x: Tensor, condition: Tensor | None, noise: Tensor, seen: Tensor | None) -> tuple[Tensor, Tensor]:
        """Reconstruction [K, B] and KL [K, B, L]: every part works row by row, so that it needn't know of K."""
        terms = self.model.terms(x, condition, noise, seen)
        members = len(self.runs)
        return terms.reconstruction.view(members, -1), terms.kl.unflatten(0, (members, -1))

    def _counted(self, kl: Tensor) -> Tensor:
        """``Elbo.counted`` of each member: [K, B, L] -> [K]."""
        counted = kl.sum((1, 2)) / kl.shape[1]
        if not any(_objective(run).free_bits > 0 for run in self.runs):
            return counted
        held = kl.mean(1).clamp(min=self.free_bits.unsqueeze(1)).sum(1)
        return torch.where(self.free_bits > 0, held, counted)

    def _corrupted(self, x: Tensor) -> Tensor:
        corruption = self.runs[0].config.corruption
        shares = zip(x.chunk(len(self.runs)), self.generators, strict=True)
        return torch.cat([corruption.apply(share, generator) for share, generator in shares])


class _Averages:
    """The moving averages of those of ``runs`` that keep one, as one table."""

    def __init__(self, runs: Sequence[Run], weights: Tensor) -> None:
        self.runs = [run for run in runs if run.ema is not None]
        self.weights = weights
        self.rows = None  # all
        if len(self.runs) < len(runs):
            self.rows = torch.tensor([k for k, run in enumerate(runs) if run.ema is not None], device=weights.device)
        self.table = weights.new_empty((len(self.runs), weights.shape[1]))
        for run, row in zip(self.runs, self.table, strict=True):
            assert run.ema is not None
            slices = [its.view_as(p) for its, p in zip(_slices(row, run.parameters), run.parameters, strict=True)]
            torch._foreach_copy_(slices, run.ema)
            run.ema[:] = slices

    def rates(self, steps: int) -> Tensor:
        """How much of an average each of an epoch's steps replaces, [steps, E, 1]."""
        rates = [[run.forgets(run.step + done) for run in self.runs] for done in range(1, steps + 1)]
        return torch.tensor(rates, device=self.weights.device).unsqueeze(-1)

    def move(self, rates: Tensor) -> None:
        """Towards the weights, after a step."""
        if self.runs:
            self.table.lerp_(self.weights if self.rows is None else self.weights.index_select(0, self.rows), rates)


def _slices(table: Tensor, parameters: Sequence[nn.Parameter]) -> tuple[Tensor, ...]:
    """The last axis of ``table``, cut as ``parameters`` lie in it one after the other."""
    slices: tuple[Tensor, ...] = table.split([parameter.numel() for parameter in parameters], dim=-1)
    return slices


def _updated_together(run: Run, device: torch.device) -> bool:
    weights = sum(parameter.numel() for parameter in run.parameters)
    return together(run.config.optimizer, weights, device.type)


def _objective(run: Run) -> Elbo:
    return cast("Elbo", run.config.objective)


class _StackedLinear(nn.Module):
    """K affine layers as one."""

    def __init__(self, layers: Sequence[nn.Linear]) -> None:
        super().__init__()
        self.members = len(layers)
        self.weight = nn.Parameter(torch.stack([layer.weight.detach() for layer in layers]))
        self.bias = nn.Parameter(torch.stack([layer.bias.detach() for layer in layers]))

    def forward(self, h: Tensor) -> Tensor:
        """[K·B, in] -> [K·B, out]."""
        out: Tensor = _Affine.apply(h.unflatten(0, (self.members, -1)), self.weight, self.bias)
        return out.flatten(0, 1)


class _Affine(torch.autograd.Function):
    """h Wᵀ + b of K members: [K, B, in], [K, out, in], [K, out] -> [K, B, out].

    Its own, because ``baddbmm`` gives the gradient of Wᵀ, and turning it round is a copy of all weights.
    """

    @staticmethod
    def forward(h: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return torch.baddbmm(bias.unsqueeze(1), h, weight.transpose(1, 2))

    @staticmethod
    def setup_context(ctx: torch.autograd.function.FunctionCtx, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        del output
        ctx.save_for_backward(*inputs[:2])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:  # noqa: ANN401 - torch's type lacks what it has
        h, weight = ctx.saved_tensors
        into_h = torch.bmm(grad, weight) if ctx.needs_input_grad[0] else None
        return into_h, torch.bmm(grad.transpose(1, 2), h), grad.sum(1)


class _StackedDropout(nn.Module):
    """Dropout on the CPU that draws from each member's generator what ``nn.Dropout`` draws from torch's."""

    def __init__(self, p: float, generators: Sequence[torch.Generator]) -> None:
        super().__init__()
        self.p = p
        self.generators = generators

    def forward(self, h: Tensor) -> Tensor:
        """[K·B, D] -> [K·B, D]."""
        kept = torch.empty_like(h, dtype=torch.bool)
        for share, generator in zip(kept.chunk(len(self.generators)), self.generators, strict=True):
            share.bernoulli_(1 - self.p, generator=generator)
        return h * kept * (1 / (1 - self.p))


def _stack_layers(stacked: VAE, models: Sequence[VAE], generators: Sequence[torch.Generator]) -> None:
    """Replace every layer of ``stacked`` that has weights, or draws, by the stack of those of ``models``."""
    for name, module in list(stacked.named_modules()):
        if isinstance(module, nn.Linear):
            stacked.set_submodule(name, _StackedLinear([cast("nn.Linear", m.get_submodule(name)) for m in models]))
        elif isinstance(module, nn.Dropout):
            stacked.set_submodule(name, _StackedDropout(module.p, generators))

"""Training several runs as one stack: K models of one shape with batched matrix products.

A member is an ordinary :class:`vae.run.Run` with its own seed, β, learning rate and optimizer. Its weights are slices of
the stack's weights. Only the step differs from ``vae.train``: one gather, one forward and one backward pass for all
members. Each member has the data order and the noise that it has alone, and is evaluated, saved and resumed as alone.

Each member equals its run alone to rounding, see
``tests/vae/fast/test_stacked.py::test_member_of_a_stack_equals_the_run_alone``.
"""

from __future__ import annotations

import copy
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from vae.corruption import NoCorruption
from vae.fast.stackable import why_not
from vae.fast.stacked_optimizers import slices, updates
from vae.fast.training import compiled, launcher
from vae.pause import in_mid_epoch
from vae.run import EpochResult, Steps, begin, examples_of, finished_epoch, read, watched
from vae.state import StateError

if TYPE_CHECKING:
    from collections.abc import Collection, Generator, Sequence

    from vae.data import TrainingData
    from vae.fast.training import Launcher
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
    """Train all of ``configs`` on ``data`` in step. Yield the results of the members that still train after every epoch.

    The keys of the results are positions in ``configs``. Send positions to stop those members: ``epochs.send({2})``. A
    member leaves after its last epoch, or when it diverges; this does not affect the others. Members can be resumed from
    different epochs. ``time/train_seconds`` of a member is an equal share of the stack's time.

    Raises:
        ValueError: The configs can't be stacked. The message has the reason.
        ConfigError: As in ``vae.train.train``.
        StateError: As in ``vae.train.train``, or a state is of the middle of an epoch.

    """
    device = torch.device(device)
    if (reason := why_not(configs, device.type)) is not None:
        raise ValueError(f"these configurations can't train as one stack: {reason}")
    states = [None] * len(configs) if resume is None else resume
    if any(state is not None and in_mid_epoch(state) for state in states):
        raise StateError("a stack goes on between two epochs, and a state is of the middle of one")
    examples = examples_of(configs[0], data, device)
    runs = {
        position: begin(config, data, state, device, examples)
        for position, (config, state) in enumerate(zip(configs, states, strict=True))
    }
    stack: _Stack | None = None
    while alive := {position: run for position, run in runs.items() if run.epoch < run.config.epochs}:
        if stack is None or stack.runs != list(alive.values()):
            stack = _Stack(list(alive.values()), device)
            # Not an attribute of the stack: a reference cycle would hold a GPU's memory until Python collects it.
            launch = launcher(stack.step, stack.runs, device, stack.generators)
        all_steps = stack.epoch(launch)
        with ExitStack() as opened:
            results = {
                position: opened.enter_context(finished_epoch(run, steps))
                for (position, run), steps in zip(alive.items(), all_steps, strict=True)
            }
            stopped = yield results
        ended = {position for position, result in results.items() if result.diverged is not None}
        runs = {position: run for position, run in alive.items() if position not in ended | set(stopped or ())}


class _Stack:
    """K runs that take their steps together.

    All weights are one table [K, P] with a row for each run. The weights of the stacked layers and of each run are slices
    of it.
    """

    def __init__(self, runs: list[Run], device: torch.device) -> None:
        self.runs = runs
        self.device = device
        self.generators = [torch.Generator(device) for _ in runs]
        weights = torch.stack([nn.utils.parameters_to_vector(run.parameters).detach() for run in runs])
        for run, row in zip(runs, weights, strict=True):
            nn.utils.vector_to_parameters(row, run.parameters)
        self.model = copy.deepcopy(runs[0].model)
        _stack_layers(self.model, [run.model for run in runs], self.generators)
        self.parameters = list(self.model.parameters())
        for parameter, its_slice in zip(self.parameters, slices(weights, runs[0]), strict=True):
            assert parameter.shape == its_slice.shape, "vae.fast.stackable lets no other weights through"
            parameter.data = its_slice
        self.updates = updates(runs, weights)
        self.free_bits = torch.tensor([_objective(run).free_bits for run in runs], device=device)
        self.terms = compiled(self.model) if runs[0].config.compile else self.model.terms

    def epoch(self, launch: Launcher) -> list[Steps]:
        """Take the steps of one epoch of every run by ``launch``; return the results of each run's steps."""
        started = time.perf_counter()
        runs, model, config = self.runs, self.model, self.runs[0].config
        for run, generator in zip(runs, self.generators, strict=True):
            generator.manual_seed(run.noise_seed)
        orders = torch.stack([run.order(self.device) for run in runs])
        batches = orders.split(config.batch_size, dim=1)
        progress = [[run.progress._replace(step=run.step + done) for run in runs] for done in range(len(batches))]
        rates = [[run.learning_rate(its) for run, its in zip(runs, each, strict=True)] for each in progress]
        betas = [[run.settings(its)["beta"] for run, its in zip(runs, each, strict=True)] for each in progress]
        schedule = self.updates.begin(rates)
        values = watched()
        model.train()
        with launch.stream():
            # Copied once an epoch, because a copy at every step would make a GPU wait.
            betas_there = torch.tensor(betas, device=self.device)
            for batch, its_betas, its_schedule in zip(batches, betas_there, schedule, strict=True):
                # The examples of one member follow those of the member before, here and in all tensors of the step.
                found = launch.take(batch.reshape(-1), its_betas, *its_schedule)
                for name, value in found.items():
                    values[name].append(value)
            by_step = read(values)  # [steps, K]
        self.updates.end()
        seconds = (time.perf_counter() - started) / len(runs)
        return [
            Steps(
                by_step={
                    name: each[:, k]
                    for name, each in by_step.items()
                    if name != "gradient_norm" or run.config.gradient_clip is not None
                },
                sizes=[batch.shape[1] for batch in batches],
                settings={"beta": betas[-1][k]},
                learning_rate=rates[-1][k],
                seconds=seconds,
            )
            for k, run in enumerate(runs)
        ]

    def step(self, index: Tensor, betas: Tensor, *schedule: Any) -> dict[str, Tensor]:  # noqa: ANN401 - the updates' own
        """Take one step of all runs on the examples at ``index`` [K·B] with ``betas`` [K]; return values by name, [K] each."""
        runs, pixels = self.runs, self.runs[0].examples.training
        config, size = runs[0].config, len(index) // len(runs)
        x = pixels.batch(index, self.generators)
        condition = self.model.condition(x, pixels.labels[index])
        seen = None if isinstance(config.corruption, NoCorruption) else self._corrupted(x)
        noise = x.new_empty((1, len(index), config.latent_size))
        for share, generator in zip(noise.chunk(len(runs), dim=1), self.generators, strict=True):
            share.normal_(generator=generator)
        reconstruction, kl = self._terms(x, condition, noise, seen)
        loss = reconstruction.mean(1) + betas * self._counted(kl)
        gradients = torch.autograd.grad(loss.sum(), self.parameters)
        norms = self.updates.step(gradients, *schedule)
        found = {
            "loss": loss.detach(),
            "reconstruction": reconstruction.detach().mean(1),
            "kl": kl.detach().sum((1, 2)) / size,
        }
        return found if norms is None else found | {"gradient_norm": norms}

    def _terms(self, x: Tensor, condition: Tensor | None, noise: Tensor, seen: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return reconstruction [K, B] and KL [K, B, L]. Parts treat each row alike, so they do not need to know K."""
        terms = self.terms(x, condition, noise, seen)
        members = len(self.runs)
        return terms.reconstruction.view(members, -1), terms.kl.unflatten(0, (members, -1))

    def _counted(self, kl: Tensor) -> Tensor:
        """Return ``Elbo.counted`` of each member: KL [K, B, L] -> [K] nats."""
        counted = kl.sum((1, 2)) / kl.shape[1]
        if not any(_objective(run).free_bits > 0 for run in self.runs):
            return counted
        held = kl.mean(1).clamp(min=self.free_bits.unsqueeze(1)).sum(1)
        return torch.where(self.free_bits > 0, held, counted)

    def _corrupted(self, x: Tensor) -> Tensor:
        corruption = self.runs[0].config.corruption
        shares = zip(x.chunk(len(self.runs)), self.generators, strict=True)
        return torch.cat([corruption.apply(share, generator) for share, generator in shares])


def _objective(run: Run) -> Elbo:
    return cast("Elbo", run.config.objective)


class _StackedLinear(nn.Module):
    """K affine layers as one layer."""

    def __init__(self, layers: Sequence[nn.Linear]) -> None:
        super().__init__()
        self.members = len(layers)
        self.weight = nn.Parameter(torch.stack([layer.weight.detach() for layer in layers]))
        self.bias = nn.Parameter(torch.stack([layer.bias.detach() for layer in layers]))

    def forward(self, h: Tensor) -> Tensor:
        """[K·B, in] -> [K·B, out]."""
        out: Tensor = StackedAffine.apply(h.unflatten(0, (self.members, -1)), self.weight, self.bias)
        return out.flatten(0, 1)


class StackedAffine(torch.autograd.Function):
    """h Wᵀ + b of K members: [K, B, in], [K, out, in], [K, out] -> [K, B, out].

    The backward pass is written out, because that of ``baddbmm`` returns the gradient of Wᵀ, whose transposition copies all
    weights.
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
    """Dropout on the CPU that draws from each member's generator the numbers that ``nn.Dropout`` draws from torch's."""

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
    """Replace every layer of ``stacked`` that has weights or random draws by the stack of the layers of ``models``."""
    for name, module in list(stacked.named_modules()):
        if isinstance(module, nn.Linear):
            stacked.set_submodule(name, _StackedLinear([cast("nn.Linear", m.get_submodule(name)) for m in models]))
        elif isinstance(module, nn.Dropout):
            stacked.set_submodule(name, _StackedDropout(module.p, generators))

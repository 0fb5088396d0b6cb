"""The update of a stack's weights: by each member's own optimizer, or by one Adam over one table of weights.

On a CPU each member keeps its own optimizer, so its results equal those of the run alone bit for bit. On a GPU this would
launch K kernels at every step, which would be most of the time of a small model's step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import nn

from vae.optimizers import Adam, AdamW

if TYPE_CHECKING:
    from torch import Tensor

    from vae.optimizers import OptimizerConfig
    from vae.run import Run

Rates = list[list[float]]  # [steps][K]: each member's learning rate at each step of an epoch
Schedule = Sequence[tuple[Any, ...]]  # by step


class Updates(Protocol):
    """Updates the weights of a stack's members, which are slices of one table."""

    def begin(self, rates: Rates) -> Schedule:
        """Begin an epoch of this many steps; return the arguments of :meth:`step` at each step besides the gradients."""

    def step(self, gradients: Sequence[Tensor], *schedule: Any) -> Tensor | None:  # noqa: ANN401 - its own, from begin
        """Take one step: clip the gradients [K, ...] of each parameter, and update weights and averages.

        If any member clips its gradients, return the gradient norms [K]. They are valid for the members that clip.
        """

    def end(self) -> None:
        """End the epoch: bring the runs' step counts, optimizers and averages to the state that each would have alone."""


def updates(runs: Sequence[Run], weights: Tensor) -> Updates:
    """Return the updates for ``runs``, whose weights are the rows of ``weights`` [K, P]."""
    together = weights.device.type != "cpu" and all(one_update(run.config.optimizer) for run in runs)
    return OneAdam(runs, weights) if together else OneByOne(runs)


def one_update(config: OptimizerConfig) -> bool:
    """Return True if :class:`OneAdam` can update members with this optimizer.

    On a GPU it does, and a stack there does not mix such members with others.
    """
    return isinstance(config, Adam | AdamW) and not config.amsgrad


class OneByOne:
    """Updates by each run's own optimizer and average, as in ``vae.train``."""

    def __init__(self, runs: Sequence[Run]) -> None:
        """Update ``runs`` in place, step by step."""
        self.runs = runs
        self.weights: list[list[Tensor]] = [[*run.parameters] for run in runs]
        self.bounded = any(run.config.gradient_clip is not None for run in runs)

    def begin(self, rates: Rates) -> Schedule:
        """Return the rates; see :class:`Updates`."""
        return [(each,) for each in rates]

    def step(self, gradients: Sequence[Tensor], rates: Sequence[float]) -> Tensor | None:
        """See :class:`Updates`."""
        norms = torch.zeros(len(self.runs)) if self.bounded else None
        for k, (run, rate, weights) in enumerate(zip(self.runs, rates, self.weights, strict=True)):
            for parameter, gradient in zip(run.parameters, gradients, strict=True):
                parameter.grad = gradient[k]
            if run.config.gradient_clip is not None and norms is not None:
                norms[k] = nn.utils.clip_grad_norm_(run.parameters, run.config.gradient_clip)
            for group in run.optimizer.param_groups:
                group["lr"] = rate
            run.optimizer.step()
            run.step += 1
            run.average(weights, run.forgets(run.step))
        return norms

    def end(self) -> None:
        """Do nothing: each step has already updated the runs."""


class OneAdam:
    """Adam and AdamW over a table with a row for each run, which has its own rate, betas, eps, decay, clipping and average.

    Torch's fused Adam takes one rate for all weights. This is the same update in seven operations for all rows (Kingma &
    Ba 2015, algorithm 1, in the order of the last remark of section 2). The arithmetic of a row does not depend on other
    rows. Moments and averages are tables. The runs have slices of them, from which checkpoints are made.
    """

    def __init__(self, runs: Sequence[Run], weights: Tensor) -> None:
        """Update ``weights`` [K, P], the weights of ``runs``, in place."""
        self.runs = runs
        self.weights = weights
        self.gradients, self.scratch = torch.empty_like(weights), torch.empty_like(weights)
        self.first, self.second = torch.zeros_like(weights), torch.zeros_like(weights)
        for run, first, second in zip(runs, self.first, self.second, strict=True):
            for name, row in (("exp_avg", first), ("exp_avg_sq", second)):
                for parameter, mine in zip(run.parameters, slices(row, run), strict=True):
                    kept = run.optimizer.state[parameter]
                    if name in kept:
                        mine.copy_(kept[name])
                    kept[name] = mine
            for parameter in run.parameters:
                run.optimizer.state[parameter]["step"] = torch.tensor(float(run.step), device=weights.device)
        configs = [_adam(run) for run in runs]
        self.new_in_first = self._column([1 - config.betas[0] for config in configs])
        self.new_in_second = self._column([1 - config.betas[1] for config in configs])
        # An L2 penalty in Adam, a factor of the weights in AdamW (Loshchilov & Hutter 2019, algorithm 2).
        self.penalty = self._column([c.weight_decay if isinstance(c, Adam) else 0.0 for c in configs])
        self.penalised = any(isinstance(config, Adam) and config.weight_decay > 0 for config in configs)
        self.decays = any(isinstance(config, AdamW) and config.weight_decay > 0 for config in configs)
        bounds = [run.config.gradient_clip for run in runs]
        self.clips = any(bound is not None for bound in bounds)
        self.bounds = self._column([math.inf if bound is None else bound for bound in bounds])
        self.averaged = torch.tensor([k for k, run in enumerate(runs) if run.ema is not None], device=weights.device)
        self.averages = weights.new_empty((len(self.averaged), weights.shape[1]))
        for run, row in zip([run for run in runs if run.ema is not None], self.averages, strict=True):
            assert run.ema is not None, "those alone"
            for index, mine in enumerate(slices(row, run)):
                mine.copy_(run.ema[index])
                run.ema[index] = mine
        self.steps = 0

    def begin(self, rates: Rates) -> Schedule:
        """Copy the schedule to the device, once an epoch; see :class:`Updates`. A copy at every step would make it wait."""
        self.steps = len(rates)
        settings, forgotten = [], []
        for done, its_rates in enumerate(rates, start=1):
            sizes, added, kept, shares = [], [], [], []
            for run, rate in zip(self.runs, its_rates, strict=True):
                config, step = _adam(run), run.step + done
                # The bias corrections of both moments are folded into the step size and into eps.
                root = (1 - config.betas[1] ** step) ** 0.5
                sizes.append(rate * root / (1 - config.betas[0] ** step))
                added.append(config.eps * root)
                kept.append(1 - rate * config.weight_decay if isinstance(config, AdamW) else 1.0)
                if run.ema is not None:
                    shares.append(run.forgets(step))
            settings.append([sizes, added, kept])
            forgotten.append(shares)
        return list(zip(self._column(settings), self._column(forgotten), strict=True))

    def step(self, gradients: Sequence[Tensor], settings: Tensor, forgotten: Tensor) -> Tensor | None:
        """See :class:`Updates`."""
        size, added, kept = settings
        torch.cat([each.flatten(1) for each in gradients], dim=1, out=self.gradients)
        norms = None
        if self.clips:
            norms = torch.linalg.vector_norm(self.gradients, dim=1)
            # The same formula as torch's clip_grad_norm_.
            self.gradients.mul_((self.bounds / (norms.unsqueeze(1) + 1e-6)).clamp(max=1))
        if self.penalised:
            self.gradients.addcmul_(self.weights, self.penalty)
        if self.decays:
            self.weights.mul_(kept)
        self.first.lerp_(self.gradients, self.new_in_first)
        torch.mul(self.gradients, self.gradients, out=self.scratch)
        self.second.lerp_(self.scratch, self.new_in_second)
        torch.sqrt(self.second, out=self.scratch)
        self.scratch.add_(added)
        torch.div(self.first, self.scratch, out=self.scratch)
        self.weights.addcmul_(self.scratch, size, value=-1)
        if len(self.averaged):
            self.averages.lerp_(self.weights.index_select(0, self.averaged), forgotten)
        return norms

    def end(self) -> None:
        """See :class:`Updates`."""
        for run in self.runs:
            run.step += self.steps
            for parameter in run.parameters:
                run.optimizer.state[parameter]["step"].fill_(run.step)

    def _column(self, values: object) -> Tensor:
        """Return ``values`` [...] as a float32 tensor [..., 1] on the device, rounded once from float64."""
        return torch.tensor(values, dtype=torch.float64).float().unsqueeze(-1).to(self.weights.device)


def slices(table: Tensor, run: Run) -> list[Tensor]:
    """Cut ``table`` [..., P] along its last axis into the parameters of ``run``, in their order and shapes: [..., *shape]."""
    cut: tuple[Tensor, ...] = table.split([parameter.numel() for parameter in run.parameters], dim=-1)
    return [each.unflatten(-1, parameter.shape) for each, parameter in zip(cut, run.parameters, strict=True)]


def _adam(run: Run) -> Adam | AdamW:
    config = run.config.optimizer
    assert isinstance(config, Adam | AdamW), "one_update lets no others through"
    return config

"""Adam for K models at once: one table of weights, one row a model, every setting a column of its own.

Torch's fused Adam takes one rate for all that it updates, so K rates are K calls, and calls are most of what a small model's
step costs. This is the same update (Kingma & Ba 2015, algorithm 1, in the order of its section 2's last remark) in
seven operations for all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from vae.optimizers import Adam, AdamW

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from vae.optimizers import OptimizerConfig
    from vae.run import Run

# Weights of one model up to which the seven operations are faster on a CPU than a fused call for each model: they read
# the tables several times, which costs nothing while they are in the cache. benchmarks/stacking.py.
SMALL = 40_000


def together(config: OptimizerConfig, weights: int, device: str) -> bool:
    """Whether a run of ``weights`` weights is updated here rather than by an optimizer of its own.

    It depends on the run alone, so that a run computes the same whoever else is in its stack.
    """
    return isinstance(config, Adam | AdamW) and not config.amsgrad and (device != "cpu" or weights <= SMALL)


class StackedAdam:
    """Adam and AdamW, each row with its own rate, betas, eps and decay.

    The moments are the tables here; those that the runs' own optimizers keep, which checkpoints are made of, are slices
    of them. A row's arithmetic doesn't depend on the other rows.
    """

    def __init__(self, runs: Sequence[Run], weights: Tensor) -> None:
        """``weights`` [K, P]: those of ``runs``, which this changes in place."""
        self.runs = runs
        self.weights = weights
        self.first, self.second = torch.zeros_like(weights), torch.zeros_like(weights)
        self.scratch = torch.empty_like(weights)
        for run, first, second in zip(runs, self.first, self.second, strict=True):
            start = 0
            for parameter in run.parameters:
                kept = run.optimizer.state[parameter]
                ours = slice(start, start := start + parameter.numel())
                for name, table in (("exp_avg", first), ("exp_avg_sq", second)):
                    mine = table[ours].view_as(parameter)
                    if name in kept:
                        mine.copy_(kept[name])
                    kept[name] = mine
                kept["step"] = torch.tensor(float(run.step), device=weights.device)
        configs = [self._config(run) for run in runs]
        self.new_in_first = self._column([1 - config.betas[0] for config in configs])
        self.new_in_second = self._column([1 - config.betas[1] for config in configs])
        # An L2 penalty in Adam, a factor of the weights in AdamW (Loshchilov & Hutter 2019, algorithm 2).
        self.penalty = self._column([c.weight_decay if isinstance(c, Adam) else 0.0 for c in configs])
        self.penalised = bool(self.penalty.any())
        self.decays = any(isinstance(config, AdamW) and config.weight_decay > 0 for config in configs)

    def settings(self, rates: Sequence[Sequence[float]]) -> Tensor:
        """[steps, 3, K, 1], for an epoch's steps: the size of each update, what is added to its root, the decay.

        With both corrections of the moments for their start at zero folded into the first two. ``rates``: [steps][K].
        """
        rows = []
        for done, its_rates in enumerate(rates, start=1):
            sizes, added, kept = [], [], []
            for run, rate in zip(self.runs, its_rates, strict=True):
                config, step = self._config(run), run.step + done
                root = (1 - config.betas[1] ** step) ** 0.5
                sizes.append(rate * root / (1 - config.betas[0] ** step))
                added.append(config.eps * root)
                kept.append(1 - rate * config.weight_decay if isinstance(config, AdamW) else 1.0)
            rows.append([sizes, added, kept])
        # In float64 until here. Once an epoch: a copy at every step would make a GPU wait.
        return torch.tensor(rows, dtype=torch.float64).float().unsqueeze(-1).to(self.weights.device)

    def step(self, gradients: Tensor, settings: Tensor) -> None:
        """Move the weights by ``gradients`` [K, P]; ``settings``: this step's row of :meth:`settings`."""
        size, added, kept = settings
        if self.penalised:
            gradients.addcmul_(self.weights, self.penalty)
        if self.decays:
            self.weights.mul_(kept)
        self.first.lerp_(gradients, self.new_in_first)
        torch.mul(gradients, gradients, out=self.scratch)
        self.second.lerp_(self.scratch, self.new_in_second)
        torch.sqrt(self.second, out=self.scratch)
        self.scratch.add_(added)
        torch.div(self.first, self.scratch, out=self.scratch)
        self.weights.addcmul_(self.scratch, size, value=-1)

    def count(self) -> None:
        """Tell the runs' own optimizers how many steps they are at, once an epoch: they take none themselves."""
        for run in self.runs:
            for parameter in run.parameters:
                run.optimizer.state[parameter]["step"].fill_(run.step)

    def _column(self, values: Sequence[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float64).float().unsqueeze(1).to(self.weights.device)

    @staticmethod
    def _config(run: Run) -> Adam | AdamW:
        config = run.config.optimizer
        assert isinstance(config, Adam | AdamW), "vae.stacked_adam.together lets no others through"
        return config

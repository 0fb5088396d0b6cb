"""Torch's optimizers without the Python work that their wrappers do at construction and at every step."""

from __future__ import annotations

import inspect
from functools import cache
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

_WRAPPED = ("add_param_group", "load_state_dict", "state_dict")  # step and zero_grad are replaced as well


@cache
def lean(kind: type[torch.optim.Optimizer]) -> Callable[..., torch.optim.Optimizer]:
    """Return a subclass of the torch optimizer ``kind`` with the same arithmetic and less overhead.

    Equals ``kind`` bit for bit, see ``tests/vae/test_optimizers.py::test_lean_optimizer_equals_torchs_bit_for_bit``.

    Torch (2.15) wraps five methods of an optimizer so that ``torch.compile`` stays out of them. Each wrapper imports
    ``torch._dynamo`` when it is called: 886 modules, 2 s of CPU in every process that trains, which no step uses. No
    optimizer is compiled here (``vae.fast.training.compiled``), so the subclass has the unwrapped methods.
    """
    methods = {name: inspect.unwrap(getattr(kind, name)) for name in _WRAPPED}
    methods |= {"step": torch.no_grad()(inspect.unwrap(kind.step)), "zero_grad": _zero_grad}
    if issubclass(kind, torch.optim.Adam):  # AdamW is a subclass of Adam
        methods["step"] = _adam_step(methods["step"])
    return type(kind.__name__, (kind,), methods)


def _zero_grad(optimizer: torch.optim.Optimizer) -> None:
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = None


def _adam_step(step_of_torch: Callable[[torch.optim.Optimizer], None]) -> Callable[[torch.optim.Optimizer], None]:
    """Return a step that calls the two fused kernels of Adam or AdamW and nothing else.

    At every step ``step_of_torch`` first checks devices, complex and sparse weights, hooks and more. That takes 0.2 ms,
    and the whole step of a small model takes 1.5 ms (docs/performance.md). ``step_of_torch`` still takes the first step,
    because it creates the optimizer's state.
    """

    @torch.no_grad()
    def step(optimizer: torch.optim.Optimizer) -> None:
        (group,) = optimizer.param_groups
        trained = [parameter for parameter in group["params"] if parameter.grad is not None]
        states = [optimizer.state[parameter] for parameter in trained]
        if not (states and all(states)):
            step_of_torch(optimizer)
            return
        steps = [state["step"] for state in states]
        torch._foreach_add_(steps, 1)
        beta1, beta2 = group["betas"]
        update = torch._fused_adamw_ if group["decoupled_weight_decay"] else torch._fused_adam_
        update(
            trained,
            [parameter.grad for parameter in trained],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [state["max_exp_avg_sq"] for state in states] if group["amsgrad"] else [],
            steps,
            lr=group["lr"],
            beta1=beta1,
            beta2=beta2,
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            amsgrad=group["amsgrad"],
            maximize=False,
        )

    vars(step)["hooked"] = True  # Otherwise torch wraps the method to call hooks, and no hook is ever registered.
    return step

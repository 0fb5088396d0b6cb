"""The rules for configurations that can train as one stack (``vae.fast.stacked``), and the reasons for all others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from vae.fast.stacked_optimizers import one_update
from vae.model import VAE, num_parameters
from vae.networks import Mlp
from vae.objectives import Elbo

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vae.data import TrainingData
    from vae.train_config import TrainConfig

# Fields that all members must share: they decide shapes, or things that are computed for all members at once.
SHARED = (
    "data",
    "network",
    "latent_size",
    "posterior",
    "prior",
    "likelihood",
    "conditioning",
    "corruption",
    "batch_size",
    "compile",
    "eval",
)


def why_not(configs: Sequence[TrainConfig], device: str = "cpu") -> str | None:
    """Return the reason why ``configs`` can't train as one stack on a device of type ``device``; None if they can."""
    for config in configs:
        if (reason := _why_not_at_all(config, device)) is not None:
            return reason
    first = configs[0]
    for config in configs[1:]:
        for name in SHARED:
            if getattr(config, name) != getattr(first, name):
                return f"{name} differs"
        if device != "cpu" and one_update(config.optimizer) != one_update(first.optimizer):
            return "on a GPU Adam and AdamW without amsgrad are one update of all members, which others can't join"
    return None


def _why_not_at_all(config: TrainConfig, device: str) -> str | None:
    network, likelihood = config.network, config.likelihood
    if not isinstance(network, Mlp):
        return f"network.kind is {network.kind!r}, and only 'mlp' is stacked"
    if network.normalisation != "none":
        return f"network.normalisation is {network.normalisation!r}, and only 'none' is stacked"
    if network.dropout > 0 and device != "cpu":
        return "network.dropout on a GPU draws from one stream for all members"
    if not isinstance(config.objective, Elbo):
        return f"objective.kind is {config.objective.kind!r}, and only 'elbo' is stacked"
    if config.prior.kind != "standard_normal":
        return f"prior.kind is {config.prior.kind!r}, and only 'standard_normal', which has no weights, is stacked"
    if getattr(likelihood, "learned", "none") == "shared":
        return "likelihood.learned is 'shared', a weight outside the networks"
    if config.precision != "float32":
        return f"precision is {config.precision!r}, and only 'float32' is stacked"
    return None


# Weights × batch size up to which a stack is faster on a CPU, measured with benchmarks/stacking.py. Above it most of the
# time is in matrix products, and a stack has as many of those (docs/performance.md).
SMALL = 12_000_000


def pays(config: TrainConfig, data: TrainingData, device: str = "cpu") -> bool:
    """Return True if several seeds of ``config`` train faster as a stack. On a CPU this holds for small models only.

    It returns False for compiled models, because those were not measured.
    """
    if config.compile or why_not([config], device) is not None:
        return False
    if device != "cpu":
        return True
    with torch.device("meta"):
        model = VAE(config, shape=data.shape, levels=data.levels, num_classes=data.num_classes)
    return num_parameters(model) * config.batch_size <= SMALL


def groups(configs: Sequence[TrainConfig], device: str = "cpu") -> list[list[int]]:
    """Return groups of positions in ``configs`` that can train together. Each position is in exactly one group."""
    found: list[list[int]] = []
    for position, config in enumerate(configs):
        for group in found:
            if why_not([configs[group[0]], config], device) is None:
                group.append(position)
                break
        else:
            found.append([position])
    return found

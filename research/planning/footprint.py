"""The cost of a config before it runs: parameters, memory and arithmetic, from a model on the meta device."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import torch

from research.planning.preflight import without_memory
from vae.model import num_parameters
from vae.objectives.loss import Batch, Progress

if TYPE_CHECKING:
    from torch import Tensor, nn

    from vae.data import TrainingData
    from vae.model import VAE
    from vae.optimizers import OptimizerConfig
    from vae.train_config import TrainConfig

FLOAT_BYTES = 4
BACKWARD = 3  # a step's arithmetic is about three times the forward pass: gradients of inputs and of weights


@dataclass(frozen=True)
class Footprint:
    """Counts are of numbers, memory is in bytes. None: what could not be traced without running it."""

    parameters: int
    adversary_parameters: int  # of a network that the objective trains against the model
    memory: dict[str, int]
    step_flops: int | None  # multiply and add are two

    @property
    def bytes(self) -> int:
        """All that is estimated."""
        return sum(self.memory.values())


def footprint(config: TrainConfig, data: TrainingData) -> Footprint:
    """Build ``config``'s model on torch's meta device and send a batch of shapes through it.

    ``memory``: ``weights``; ``gradients``, as many; ``optimizer``, its moments; ``average``, the EMA; ``activations``,
    every tensor that the forward pass of one batch saves for the backward pass, in float32. Temporaries, the
    allocator's slack, PyTorch itself and the data are not in it.

    Raises:
        ConfigError: the network doesn't fit the data.

    """
    model = without_memory(config, data)
    with torch.device("meta"):
        adversarial: Any = config.objective if hasattr(config.objective, "adversary") else None
        adversary: nn.Module | None = None if adversarial is None else adversarial.adversary(config.latent_size)
        flops, activations = _trace(config, data, model, adversary)
    own, other = num_parameters(model), 0 if adversary is None else num_parameters(adversary)
    moments = own * _moments(config.optimizer)
    if adversarial is not None:
        moments += other * _moments(adversarial.optimizer)
    memory = {
        "weights": FLOAT_BYTES * (own + other),
        "gradients": FLOAT_BYTES * (own + other),
        "optimizer": FLOAT_BYTES * moments,
        "average": 0 if config.ema_decay is None else FLOAT_BYTES * own,
    }
    if activations is not None:
        memory["activations"] = activations
    return Footprint(own, other, memory, None if flops is None else BACKWARD * flops)


def checkpoint_bytes(config: TrainConfig, data: TrainingData) -> int:
    """Return the bytes of a checkpoint of ``config`` on disk: weights, optimizer, average, and an adversary if there is one.

    Raises:
        ConfigError: the network doesn't fit the data.

    """
    numbers = num_parameters(without_memory(config, data)) * (
        1 + _moments(config.optimizer) + (config.ema_decay is not None)
    )
    adversarial: Any = config.objective if hasattr(config.objective, "adversary") else None
    if adversarial is not None:
        with torch.device("meta"):
            other = num_parameters(adversarial.adversary(config.latent_size))
        numbers += other * (1 + _moments(adversarial.optimizer))
    return FLOAT_BYTES * numbers


def _moments(optimizer: OptimizerConfig) -> int:
    """Return how many numbers an optimizer keeps for each parameter."""
    match optimizer.kind:
        case "adam" | "adamw":
            return 3 if optimizer.amsgrad else 2
        case "adamax":
            return 2
        case "rmsprop":
            return 1 + (optimizer.momentum > 0) + optimizer.centered
        case "sgd":
            return int(optimizer.momentum > 0)


def _trace(
    config: TrainConfig, data: TrainingData, model: VAE, adversary: nn.Module | None
) -> tuple[int | None, int | None]:
    """Arithmetic of one forward pass, and the bytes that it saves; None where a part looks at values."""
    from torch.utils.flop_counter import FlopCounterMode  # noqa: PLC0415 - Triton comes with it: not for every sweep

    size = min(config.batch_size, len(data.train))
    owned = {_storage(tensor) for tensor in (*model.parameters(), *model.buffers())}
    saved: dict[int, Tensor] = {}  # by storage: a tensor and its views are one piece of memory

    def keep(tensor: Tensor) -> Tensor:
        where = _storage(tensor)
        if where not in owned:
            saved[where] = tensor
        return tensor

    counter = FlopCounterMode(display=False)
    try:
        with counter, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            x = torch.empty(size, prod(data.shape))
            condition = model.condition(x, torch.zeros(size, dtype=torch.long))
            terms = model.terms(x, condition, torch.empty(config.objective.samples, size, config.latent_size))
            batch = Batch(model, terms, condition, Progress(0, 1, config.epochs), len(data.train), adversary)
            config.objective.loss(batch)
            if adversary is not None:
                config.objective.adversary_loss(batch)  # type: ignore[union-attr] # it has an adversary
    except (RuntimeError, NotImplementedError):
        return None, None
    return counter.get_total_flops(), sum(tensor.untyped_storage().nbytes() for tensor in saved.values())


def _storage(tensor: Tensor) -> int:
    """Which piece of memory ``tensor`` is or views: on the meta device all addresses are 0."""
    return int(tensor.untyped_storage()._cdata)  # noqa: SLF001 - no other way

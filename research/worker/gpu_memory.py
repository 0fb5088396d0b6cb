"""The memory of a GPU that trials share: what one takes, how many fit, and that none takes its neighbours'.

Only :func:`limit_memory` and :func:`measure` call CUDA; the rest is arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from research.errors import UserError
from research.worker.replicates import train_together
from vae.data import load_training
from vae.serialization import from_record

if TYPE_CHECKING:
    from research.ledger.settings import Resources

GRAIN = 10_000  # Ray counts shares in ten-thousandths
# Of every process on a GPU, beside its tensors: CUDA's context and loaded kernels, which no allocator counts.
CONTEXT_BYTES = 600 * 2**20
SLACK = 1.15  # above the measured peak: other epochs, and larger configs than those that were drawn


@dataclass(frozen=True)
class Measured:
    """Bytes on one GPU: what it has, and the most that the allocator held for one trial."""

    total: int
    peak: int


def trials_per_gpu(measured: Measured) -> int:
    """How many trials of the measured one's size fit on the GPU beside one another, each with its process's context.

    Raises:
        UserError: not even one does.

    """
    fit = int(measured.total // (measured.peak * SLACK + CONTEXT_BYTES))
    if fit < 1:
        raise UserError(
            f"--gpus-per-trial auto: the largest config took {gib(measured.peak)} of a GPU with {gib(measured.total)}, "
            "which leaves no room to spare; narrow the space, or give --gpus-per-trial 1 and see"
        )
    return fit


def share_of(trials: int) -> float:
    """The share of a GPU that lets so many trials run on it, rounded down as Ray counts shares."""
    return GRAIN // trials / GRAIN


def memory_fraction(share: float, total: int) -> float:
    """The part of a GPU's memory that the allocator of a trial with ``share`` may take: its share, less the context.

    With a share no larger than the context, half of it: such a trial ends as ``out_of_memory`` and not its neighbour.
    """
    left = share - CONTEXT_BYTES / total
    return left if left > 0 else share / 2


def device_of(resources: Resources) -> str:
    """What torch calls the device that a trial trains on."""
    return "cuda" if resources.gpus_per_trial > 0 else "cpu"


def limit_memory(device: str, share: float) -> None:
    """Keep this process within its share of the GPU's memory, so that it can't take its neighbours'."""
    if device == "cuda":
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(1.0 if share >= 1 else memory_fraction(share, total))


def measure(config: dict[str, Any], data_dir: str | None, replicates: int, metric: str) -> Measured:
    """Train one epoch of ``config`` on this process's GPU, evaluation included, and say what memory it took.

    Raises:
        torch.OutOfMemoryError: more than there is.

    """
    chosen = from_record(config)
    data = load_training(chosen.data, None if data_dir is None else Path(data_dir))
    torch.cuda.reset_peak_memory_stats()
    next(train_together(chosen, data, replicates, metric=metric, device="cuda"))
    return Measured(total=torch.cuda.get_device_properties(0).total_memory, peak=torch.cuda.max_memory_reserved())


def gib(count: float) -> str:
    """Bytes as a person reads them."""
    return f"{count / 2**30:.2f} GiB"

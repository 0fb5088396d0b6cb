"""The memory of a GPU that several trials share: how much one needs, how many fit, and the limit for each.

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
    """Memory of one GPU in bytes: its total, and the peak that the allocator held for one trial."""

    total: int
    peak: int


def trials_per_gpu(measured: Measured) -> int:
    """Return how many trials of the measured size fit on the GPU at once, each with the CUDA context of its process.

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
    """Return the share of a GPU that lets ``trials`` trials run on it, rounded down to the grain of Ray's shares."""
    return GRAIN // trials / GRAIN


def memory_fraction(share: float, total: int) -> float:
    """Return the fraction of a GPU's memory that the allocator of a trial with ``share`` may use: its share less the context.

    If the share is no larger than the context, the fraction is half of it. Such a trial ends as ``out_of_memory``, and its
    neighbours do not.
    """
    left = share - CONTEXT_BYTES / total
    return left if left > 0 else share / 2


def device_of(resources: Resources) -> str:
    """Return torch's name for the device that trials train on."""
    return "cuda" if resources.gpus_per_trial > 0 else "cpu"


def limit_memory(device: str, share: float) -> None:
    """Limit this process to its share of the GPU's memory, so that it cannot use that of its neighbours."""
    if device == "cuda":
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(1.0 if share >= 1 else memory_fraction(share, total))


def measure(config: dict[str, Any], data_dir: str | None, replicates: int, metric: str) -> Measured:
    """Train one epoch of ``config`` on this process's GPU, with evaluation, and return the memory that it needed.

    Raises:
        torch.OutOfMemoryError: more than there is.

    """
    chosen = from_record(config)
    data = load_training(chosen.data, None if data_dir is None else Path(data_dir))
    torch.cuda.reset_peak_memory_stats()
    next(train_together(chosen, data, replicates, metric=metric, device="cuda"))
    return Measured(total=torch.cuda.get_device_properties(0).total_memory, peak=torch.cuda.max_memory_reserved())


def gib(count: float) -> str:
    """Return a number of bytes in GiB, as text."""
    return f"{count / 2**30:.2f} GiB"

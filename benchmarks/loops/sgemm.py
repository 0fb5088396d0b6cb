"""What this machine's matrix products reach at best: the yardstick for "percent of peak"."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import torch
from layers import MODELS, flops_per_sample
from protocol import serve

if TYPE_CHECKING:
    from protocol import Block
    from torch import Tensor

# (rows, inner, columns): a large square, and M1's two large layers at its batch size.
SHAPES = ((2048, 2048, 2048), (128, 784, 400), (784, 128, 400))
SECONDS_PER_SHAPE = 0.15


def build(name: str, images: Tensor) -> tuple[Block, dict[str, Any]]:  # noqa: ARG001 - every loop's signature
    """The best single-precision rate over the shapes, and what one training step of the model asks for."""
    operands = [(torch.randn(m, k), torch.randn(k, n), torch.empty(m, n)) for m, k, n in SHAPES]

    def block() -> dict[str, float]:
        best = 0.0
        for a, b, out in operands:
            end = time.perf_counter() + SECONDS_PER_SHAPE
            while time.perf_counter() < end:
                start = time.perf_counter()
                torch.mm(a, b, out=out)
                taken = time.perf_counter() - start
                best = max(best, 2.0 * a.shape[0] * a.shape[1] * b.shape[1] / taken)
        return {"flops": best}

    return block, {"flops_per_sample": flops_per_sample(MODELS[name])}


if __name__ == "__main__":
    serve(build)

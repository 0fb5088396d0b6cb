"""Σ_d of the binary cross-entropy, for many decoded samples of few examples: what estimates of log p(x) spend their time on."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

AT_ONCE = 64  # σ(|l|) is at least a half, so that so many multiply to 2⁻⁶⁴ or more: far from float32's smallest, 2⁻¹²⁶


def summed_cross_entropy(logits: Tensor, x: Tensor) -> Tensor:
    """−Σ_d x_d log σ(l_d) + (1 − x_d) log σ(−l_d): [S, B, D] logits, [B, D] -> [S, B] nats. Overwrites ``logits``.

    Σ_d max(l, 0) − x l − log σ(|l|), the last by the logarithms of products of many σ(|l|): the cross-entropy by dimension takes
    one of each, which is twice the work (docs/performance.md). Rounding is 2 to 4 · 10⁻⁷ of the sum, as there. Not meant for gradients.
    """
    total = logits.clamp(min=0).addcmul_(x, logits, value=-1).sum(-1)
    for some in logits.abs_().sigmoid_().split(AT_ONCE, dim=-1):
        total -= some.prod(-1).log_()
    return total

"""Σ_d of the binary cross-entropy, for many decoded samples of few examples: what estimates of log p(x) spend their time on."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

AT_ONCE = 16  # σ(|l|) is at least a half: so many multiply to 2⁻¹⁶ or more, far from underflow; more were slower


def summed_cross_entropy(logits: Tensor, x: Tensor) -> Tensor:
    """−Σ_d x_d log σ(l_d) + (1 − x_d) log σ(−l_d): [S, B, D] logits, [B, D] -> [S, B] nats. Overwrites ``logits``.

    Σ_d max(l, 0) − x l − log σ(|l|), the last by the logarithms of products of sixteen σ(|l|): the cross-entropy by dimension takes
    one of each, which is twice the work (docs/performance.md). Rounding is 1 to 4 · 10⁻⁷ of the sum, as there. Not meant for gradients.
    """
    total = logits.clamp(min=0).addcmul_(x, logits, value=-1).sum(-1)
    near = logits.abs_().sigmoid_()
    # Those that are multiplied lie D / 16 apart, as neighbours in memory then belong to different products: half the time.
    columns = near.shape[-1] // AT_ONCE
    products = near[..., : AT_ONCE * columns].unflatten(-1, (AT_ONCE, columns)).prod(-2)
    rest = near[..., AT_ONCE * columns :].prod(-1)
    total -= products.log_().sum(-1)
    total -= rest.log_()
    return total

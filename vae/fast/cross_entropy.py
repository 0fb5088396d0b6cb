"""The binary cross-entropy summed over dimensions, for many decoded samples of few examples."""

from __future__ import annotations

import torch
from torch import Tensor

AT_ONCE = 16  # probabilities that are multiplied before one logarithm is taken; more were slower


def summed_cross_entropy(logits: Tensor, x: Tensor) -> Tensor:
    """Return −Σ_d x_d log σ(l_d) + (1 − x_d) log σ(−l_d) in nats, shape [...]. Overwrites ``logits``.

    ``logits`` is [..., D], and ``x`` broadcasts to it. No gradient flows through the result.

    The sum is written as Σ_d max(l, 0) − x l − log σ(|l|). Each σ(|l|) is at least one half, so the product of sixteen is
    at least 2⁻¹⁶ and can't underflow. This takes one logarithm for sixteen dimensions, where the cross-entropy by
    dimension takes sixteen: half the work (docs/performance.md). The rounding error is 1 to 4 · 10⁻⁷ of the sum, the same
    as there.
    """
    total = logits.clamp(min=0).addcmul_(x, logits, value=-1).sum(-1)
    return total.sub_(_products(logits.abs_().sigmoid_()).log_().sum(-1))


def nll_of_seen(logits: Tensor) -> Tensor | None:
    """Return −Σ_d log σ(l_d) in nats, [..., D] -> [...]. Overwrites ``logits``.

    This is the negative log-likelihood of binary x, if l_d is the logit of the value that x_d has. It takes half as many
    passes over memory as :func:`summed_cross_entropy`. Returns None if a product of sixteen probabilities is below the
    smallest normal float.
    """
    products = _products(logits.sigmoid_())
    if products.amin() < torch.finfo(products.dtype).tiny:  # This is False for NaN.
        return None
    return products.log_().sum(-1).neg_()


def _products(factors: Tensor) -> Tensor:
    """Multiply sixteen factors at a time: [..., D] -> [..., about D / 16]."""
    # The factors of one product lie D / 16 apart, so that neighbours in memory belong to different products: half the time.
    columns, rest = divmod(factors.shape[-1], AT_ONCE)
    products = factors[..., : AT_ONCE * columns].unflatten(-1, (AT_ONCE, columns)).prod(-2)
    return torch.cat([products, factors[..., -rest:].prod(-1, keepdim=True)], -1) if rest else products

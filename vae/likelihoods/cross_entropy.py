"""Σ_d of the binary cross-entropy, for many decoded samples of few examples: what estimates of log p(x) spend their time on."""

from __future__ import annotations

import torch
from torch import Tensor

AT_ONCE = 16  # so many probabilities are multiplied before a logarithm is taken; more were slower


def summed_cross_entropy(logits: Tensor, x: Tensor) -> Tensor:
    """−Σ_d x_d log σ(l_d) + (1 − x_d) log σ(−l_d): [..., D] logits, x that broadcasts to it -> [...] nats. Overwrites ``logits``.

    Σ_d max(l, 0) − x l − log σ(|l|): sixteen σ(|l|), each at least a half, multiply to 2⁻¹⁶ or more, far from underflow. The
    cross-entropy by dimension takes a logarithm of each, which is twice the work (docs/performance.md). Rounding is
    1 to 4 · 10⁻⁷ of the sum, as there. Not meant for gradients.
    """
    total = logits.clamp(min=0).addcmul_(x, logits, value=-1).sum(-1)
    return total.sub_(_products(logits.abs_().sigmoid_()).log_().sum(-1))


def nll_of_seen(logits: Tensor) -> Tensor | None:
    """−Σ_d log σ(l_d), [..., D] -> [...] nats: of binary x, where l is the logit of what x shows. Overwrites ``logits``.

    Half as many passes over memory as :func:`summed_cross_entropy` takes for the same number. None where sixteen
    probabilities multiply to less than a float can tell.
    """
    products = _products(logits.sigmoid_())
    if products.amin() < torch.finfo(products.dtype).tiny:  # false of what is no number
        return None
    return products.log_().sum(-1).neg_()


def _products(factors: Tensor) -> Tensor:
    """[..., D] -> [..., about D / 16]."""
    # Those that are multiplied lie D / 16 apart, as neighbours in memory then belong to different products: half the time.
    columns, rest = divmod(factors.shape[-1], AT_ONCE)
    products = factors[..., : AT_ONCE * columns].unflatten(-1, (AT_ONCE, columns)).prod(-2)
    return torch.cat([products, factors[..., -rest:].prod(-1, keepdim=True)], -1) if rest else products

"""The division of a set, and subsets of its parts, as fixed functions of a seed."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from vae import seeds
from vae.data.dataset import DataError

SubsetRule = Literal["first", "permuted"]


def held_out(total: int, count: int, seed: int, stream: str, *, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return the indices of kept and of held-out examples, ``count`` of ``total`` held out; int64, each sorted.

    The held-out examples are the first ``count`` of a permutation by the generator ``vae.seeds.generator(seed, stream)``.
    With ``labels`` the permutation is drawn for each label, and each label keeps its share to within one example.

    Raises:
        DataError: ``count`` leaves no example.

    """
    if count >= total:
        message = f"data.validation must be below {total}, the set's training examples, got {count}"
        raise DataError(message)
    generator = seeds.generator(seed, stream)
    out = torch.zeros(total, dtype=torch.bool)
    if labels is None:
        out[torch.randperm(total, generator=generator)[:count]] = True
    else:
        for label, share in enumerate(shares(torch.bincount(labels).tolist(), count)):
            members = (labels == label).nonzero().flatten()
            out[members[torch.randperm(len(members), generator=generator)[:share]]] = True
    return (~out).nonzero().flatten(), out.nonzero().flatten()


def subset(total: int, count: int, *, rule: SubsetRule, seed: int, split: str) -> Tensor:
    """Return the indices of a subset of ``count`` of a split's ``total`` examples, int64 [min(count, total)].

    ``permuted`` takes the first ``count`` of a permutation that is drawn from ``seed`` and the split's name. A file is often
    sorted by label, so its first examples can all be of one class. A smaller subset is the start of a larger one.

    ``first`` takes the first ``count`` in file order. Both return all examples in file order if ``count`` covers the split.
    """
    if rule == "first" or count >= total:
        return torch.arange(min(count, total))
    return torch.randperm(total, generator=seeds.generator(seed, "subset", split))[:count]


def shares(sizes: list[int], count: int) -> list[int]:
    """Divide ``count`` in proportion to ``sizes`` by largest remainders. Ties go to the lower index."""
    total = sum(sizes)
    whole = [size * count // total for size in sizes]
    by_remainder = sorted(range(len(sizes)), key=lambda i: -(sizes[i] * count % total))
    for i in by_remainder[: count - sum(whole)]:
        whole[i] += 1
    return whole

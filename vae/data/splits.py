"""Which examples are held out, and which of them stand for all: fixed functions of a seed."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from vae import seeds
from vae.data.dataset import DataError

SubsetRule = Literal["first", "permuted"]


def held_out(total: int, count: int, seed: int, stream: str, *, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Indices (kept, held out) of ``total`` examples, ``count`` of them held out; int64, each sorted.

    The first ``count`` of a permutation drawn by the generator ``vae.seeds.generator(seed, stream)``. With
    ``labels`` the permutation is drawn label by label, and each label's share is its share of the whole to
    within one example.
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
    """Return which of a split's ``total`` examples are used where ``count`` of them are enough, int64 [min(count, total)].

    ``permuted``: the first ``count`` of one permutation of the split called ``split``, drawn from ``seed``. A file is
    often sorted by label, and its first examples are then of one class. A smaller subset is the start of a larger one.
    ``first``: the first ``count`` in file order. A ``count`` that covers the split gives all in file order, by both.
    """
    if rule == "first" or count >= total:
        return torch.arange(min(count, total))
    return torch.randperm(total, generator=seeds.generator(seed, "subset", split))[:count]


def shares(sizes: list[int], count: int) -> list[int]:
    """``count`` divided in proportion to ``sizes``, by largest remainders, ties to the lower index."""
    total = sum(sizes)
    whole = [size * count // total for size in sizes]
    by_remainder = sorted(range(len(sizes)), key=lambda i: -(sizes[i] * count % total))
    for i in by_remainder[: count - sum(whole)]:
        whole[i] += 1
    return whole

"""Which examples are held out: a fixed function of a seed, recorded by hash."""

from __future__ import annotations

import torch
from torch import Tensor

from vae import seeds
from vae.data.dataset import DataError


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


def shares(sizes: list[int], count: int) -> list[int]:
    """``count`` divided in proportion to ``sizes``, by largest remainders, ties to the lower index."""
    total = sum(sizes)
    whole = [size * count // total for size in sizes]
    by_remainder = sorted(range(len(sizes)), key=lambda i: -(sizes[i] * count % total))
    for i in by_remainder[: count - sum(whole)]:
        whole[i] += 1
    return whole

"""Which examples are held out."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vae.data import DataError
from vae.data.splits import held_out, shares


@settings(max_examples=60, deadline=None)
@given(total=st.integers(2, 300), seed=st.integers(0, 2**40), data=st.data())
def test_a_partition(total: int, seed: int, data: st.DataObject) -> None:
    """Kept and held out are sorted, disjoint, and together everything, stratified or not."""
    count = data.draw(st.integers(0, total - 1))
    labels = torch.randint(0, 4, (total,), generator=torch.Generator().manual_seed(seed))
    for strata in (None, labels):
        kept, out = held_out(total, count, seed, "a test", labels=strata)
        assert len(out) == count
        assert torch.equal(torch.cat([kept, out]).sort().values, torch.arange(total))
        assert torch.equal(kept, kept.sort().values)
        assert torch.equal(out, out.sort().values)


@settings(deadline=None)
@given(st.lists(st.integers(0, 50), min_size=1, max_size=8).filter(any), st.integers(0, 10**6))
def test_shares(sizes: list[int], raw: int) -> None:
    """Shares sum to what was asked, and each is within one of its exact proportion."""
    total = sum(sizes)
    count = raw % (total + 1)
    result = shares(sizes, count)
    assert sum(result) == count
    assert all(abs(s * total - size * count) < total for s, size in zip(result, sizes, strict=True))
    assert all(s <= size for s, size in zip(result, sizes, strict=True))


def test_golden_permutation() -> None:
    """The same seed holds out the same examples in every version."""
    assert held_out(20, 4, 0, "validation")[1].tolist() == [2, 7, 9, 10]
    labels = torch.arange(20) % 2
    assert held_out(20, 4, 0, "validation", labels=labels)[1].tolist() == [14, 15, 18, 19]


def test_something_must_train() -> None:
    """Holding out all is refused."""
    with pytest.raises(DataError, match=r"data\.validation must be below 10.*got 10"):
        held_out(10, 10, 0, "a test")

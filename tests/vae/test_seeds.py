"""Random streams by name."""

from __future__ import annotations

import torch

from vae.seeds import derive, generator


def test_streams_are_functions_of_their_names():
    """The same names are the same stream, other names, numbers or seeds others."""
    names = [(), ("a",), ("b",), ("a", 1), ("a", 2), ("a", 1, 2), ("a", 12)]
    seeds = {derive(seed, *name) for name in names for seed in (0, 1)}
    assert len(seeds) == 2 * len(names)
    assert all(0 <= seed < 2**63 for seed in seeds)
    first, again = (torch.rand(5, generator=generator(3, "x", 1)) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, torch.rand(5, generator=generator(3, "x", 2)))


def test_streams_do_not_change():
    """The numbers behind every published result: changing the rule would change them all."""
    assert derive(0, "weights") == 133441691874178746
    assert derive(7, "order", 3) == 929583480629082613


def test_the_global_generator_is_left_alone():
    """Making a stream draws nothing from torch's own."""
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    torch.rand(9, generator=generator(0, "x"))
    assert torch.equal(torch.rand(3), expected)

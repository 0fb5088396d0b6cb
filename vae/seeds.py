"""Independent random streams from one seed, by name.

The seed of a stream is a hash of (seed, names), so a stream can be made again at any epoch without replaying earlier
ones. A resumed run therefore continues bit for bit, and no generator state has to be saved.
"""

from __future__ import annotations

import hashlib

import torch


def derive(seed: int, *names: str | int) -> int:
    """Return a 63-bit seed for the stream ``names`` under ``seed``."""
    text = "/".join([str(seed), *map(str, names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *names: str | int) -> torch.Generator:
    """Return a generator for the stream ``names``. It is on the CPU, so that every device gets the same numbers."""
    return torch.Generator().manual_seed(derive(seed, *names))

"""Independent random streams from one seed, by name.

Each stream's seed is a hash of (seed, names), so a stream can be re-made at any epoch without replaying what
came before it. That is what lets a resumed run continue bit for bit with no generator state to save.
"""

from __future__ import annotations

import hashlib

import torch


def derive(seed: int, *names: str | int) -> int:
    """A 63-bit seed for the stream called ``names`` under ``seed``."""
    text = "/".join([str(seed), *map(str, names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *names: str | int) -> torch.Generator:
    """A CPU generator for the stream called ``names``: on the CPU so that every device draws the same numbers."""
    return torch.Generator().manual_seed(derive(seed, *names))

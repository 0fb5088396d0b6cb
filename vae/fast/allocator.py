"""The C library's allocator, told to keep the memory that tensors free."""

from __future__ import annotations

import ctypes
from functools import cache

# mallopt(3), from <malloc.h>
M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3

LARGEST_KEPT = 32 * 2**20  # bytes of one block: glibc allows no more
KEPT = 256 * 2**20  # bytes in all


@cache
def keep_freed_memory() -> None:
    """Keep freed blocks of up to 32 MiB each, 256 MiB in all, for what this process allocates next.

    glibc gives large blocks back to the system as they are freed and has their pages zeroed again for the next use, at
    every step of a loop: up to 7 % of a convolutional run's CPU time and a fifth of an estimate's of log p(x)
    (docs/performance.md). Computes the same. Of the whole process, for good; nothing on a C library that isn't glibc.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT)
        mallopt(M_TRIM_THRESHOLD, KEPT)

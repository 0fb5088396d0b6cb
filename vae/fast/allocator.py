"""Settings of the C library's allocator, so that it keeps the memory that tensors free."""

from __future__ import annotations

import ctypes
from functools import cache

# mallopt(3), from <malloc.h>
M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3

LARGEST_KEPT = 32 * 2**20  # bytes in one block; glibc allows no more
KEPT = 256 * 2**20  # bytes in total


@cache
def keep_freed_memory() -> None:
    """Keep freed blocks of up to 32 MiB each, 256 MiB in total, for later allocations of this process.

    By default glibc returns large blocks to the system when they are freed, and the system zeroes their pages again for
    the next use. In a loop this happens at every step. It took up to 7 % of a convolutional run's CPU time, and a fifth
    of the time of an estimate of log p(x) (docs/performance.md).

    The setting changes no result. It holds for the whole process and can't be undone. With another C library than glibc
    this function does nothing.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT)
        mallopt(M_TRIM_THRESHOLD, KEPT)

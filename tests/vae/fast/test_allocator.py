"""Freed memory is kept, so that the system does not zero the same pages again."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from tests.support.small import few_digits, small_config
from vae.evaluate import importance_weighted_nll
from vae.train import train

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's allocator has these settings")

# By default glibc maps such blocks anew at each use: in the main thread, and in another one, in which a Ray worker trains.
PAGES_FETCHED = """
import ctypes, resource, sys, threading
from vae.fast.allocator import keep_freed_memory

if sys.argv[1] == "kept":
    keep_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]

def use(times):
    for _ in range(times):
        blocks = [libc.malloc(2**21) for _ in range(6)]
        for block in blocks:
            ctypes.memset(block, 1, 2**21)
        for block in blocks:
            libc.free(ctypes.c_void_p(block))

def fetched():
    use(2)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    use(20)
    seen.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

seen = []
fetched()
thread = threading.Thread(target=fetched)
thread.start()
thread.join()
print(*seen)
"""


def pages_fetched(how):
    """Return the page faults of a main and a second thread that use 12 MiB twenty times."""
    program = [sys.executable, "-c", PAGES_FETCHED, how]
    return [int(count) for count in subprocess.run(program, capture_output=True, text=True, check=True).stdout.split()]


def test_keep_freed_memory_when_blocks_are_freed_uses_their_pages_again():
    """Twenty times 12 MiB are 60,000 page faults by default, and few when freed memory is kept."""
    assert max(pages_fetched("kept")) < 1000
    assert max(pages_fetched("left alone")) > 10_000


def test_keep_freed_memory_is_called_by_training_and_by_estimates(monkeypatch):
    """A run and an estimate of log p(x) set the allocator, in a user's own process as in a sweep's worker."""
    asked = []
    monkeypatch.setattr("vae.fast.training.keep_freed_memory", lambda: asked.append("train"))
    monkeypatch.setattr("vae.fast.evaluation.keep_freed_memory", lambda: asked.append("importance_weighted_nll"))
    result = next(train(small_config(), few_digits()))
    assert asked == ["train"]
    importance_weighted_nll(result.model, result.examples, k=2, images=2, seed=0, split="validation")
    assert asked == ["train", "importance_weighted_nll"]

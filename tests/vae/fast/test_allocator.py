"""Freed memory is kept: what was zeroed by the system once is not fetched from it again."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from tests.support.small import few_digits, small_config
from vae.evaluate import importance_weighted_nll
from vae.train import train

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's allocator is told anything")

# Blocks that glibc maps anew at each use when it is left alone, in the main thread and, as a Ray worker trains, in another.
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
    """In each of two threads, by what uses blocks of 12 MiB in all, twenty times."""
    program = [sys.executable, "-c", PAGES_FETCHED, how]
    return [int(count) for count in subprocess.run(program, capture_output=True, text=True, check=True).stdout.split()]


def test_freed_blocks_are_used_again():
    """Twenty times 12 MiB are 60,000 pages of the system when each use asks for them again."""
    assert max(pages_fetched("kept")) < 1000
    assert max(pages_fetched("left alone")) > 10_000


def test_who_asks_for_it(monkeypatch):
    """A run, and an estimate of log p(x): for the library's user too, not in a sweep's workers alone."""
    asked = []
    monkeypatch.setattr("vae.run.keep_freed_memory", lambda: asked.append("train"))
    monkeypatch.setattr("vae.evaluate.keep_freed_memory", lambda: asked.append("importance_weighted_nll"))
    result = next(train(small_config(), few_digits()))
    assert asked == ["train"]
    importance_weighted_nll(result.model, result.examples, k=2, images=2, seed=0, split="validation")
    assert asked == ["train", "importance_weighted_nll"]

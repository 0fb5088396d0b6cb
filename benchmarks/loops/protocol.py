"""How a loop talks to the driver: one process for each loop, told over stdin to train one block at a time.

The loops of a round run one after another while the others wait, so that all see the same machine.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    Block = Callable[[], dict[str, float]]


def busy_seconds() -> float:
    """CPU seconds that the whole machine has been busy since it started; NaN where /proc/stat is missing."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return float("nan")
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, stat.read_text().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def serve(build: Callable[..., tuple[Block, dict[str, Any]]]) -> None:
    """Answer the driver until it closes stdin.

    The first line is ``{"model", "images", "threads"}`` and what else ``build`` takes by name; it gets the model's name and
    the images, uint8 [N, 28, 28], and returns a block (train once over the images, return its mean loss in nats per
    example) and what is to be said about it. Every further line asks for one block.
    """
    # What libraries print must not reach the driver.
    channel = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    setup = json.loads(sys.stdin.readline())
    torch.set_num_threads(setup.pop("threads"))
    torch.manual_seed(0)
    images = torch.from_numpy(np.load(setup.pop("images")))
    block, about = build(setup.pop("model"), images, **setup)
    about |= {"torch": torch.__version__, "python": platform.python_version()}
    channel.write(json.dumps(about) + "\n")
    for _ in sys.stdin:
        machine, wall, own = busy_seconds(), time.perf_counter(), time.process_time()
        result = block()
        wall, own = time.perf_counter() - wall, time.process_time() - own
        others = (busy_seconds() - machine - own) / wall
        channel.write(json.dumps({"wall": wall, "cpu": own, "others": others, **result}) + "\n")

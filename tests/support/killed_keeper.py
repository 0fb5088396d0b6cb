"""Run by test_checkpoints: kills ``keep_best`` at every step and at random moments, and prints what was left.

In a process of its own, which forks while it has one thread only.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from research.driver.best_models import keep_best
from research.errors import CorruptFile
from research.ledger.log import Ledger
from research.store.folders import verify_folder

if TYPE_CHECKING:
    from collections.abc import Callable

RANDOM_KILLS = 30
STEPS = ("fsync", "rename", "unlink", "rmdir", "mkdir")


def valid_models(sweep: Path) -> list[str]:
    """The models that verify."""
    found = []
    for path in sorted((sweep / "models").iterdir()):
        try:
            verify_folder(path)
        except CorruptFile:
            continue
        if not path.name.startswith("."):
            found.append(path.name)
    return found


def die_at(step: int) -> None:
    """Let the process kill itself before its ``step``-th change of the disk."""
    count = 0

    def counted(change: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **named: Any) -> Any:
            nonlocal count
            if count == step:
                os.kill(os.getpid(), signal.SIGKILL)
            count += 1
            return change(*arguments, **named)

        return run

    for name in STEPS:
        setattr(os, name, counted(getattr(os, name)))


def keep_in_child(sweep: Path, step: int | None, delay: float) -> bool:
    """Whether the child that ran ``keep_best`` was killed before it was done."""
    child = os.fork()
    if child == 0:
        if step is not None:
            die_at(step)
        keep_best(Ledger.open(sweep), sweep)
        os._exit(0)
    if step is None:
        time.sleep(delay)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def main(pristine: Path, work: Path) -> NoReturn:
    """``pristine``: a sweep with a kept model of trial 0 and a better trial 1 that has just ended."""
    results = []
    begin = time.perf_counter()
    shutil.copytree(pristine, work)
    keep_best(Ledger.open(work), work)
    whole = time.perf_counter() - begin
    moments = random.Random(0)
    steps: list[int | None] = [*range(40)]
    hits = 0
    while steps or hits < RANDOM_KILLS:
        step = steps.pop(0) if steps else None
        shutil.rmtree(work)
        shutil.copytree(pristine, work)
        killed = keep_in_child(work, step, moments.uniform(0, whole))
        hits += killed and step is None
        after_kill = valid_models(work)
        problems = keep_best(Ledger.open(work), work)
        trials = sorted(path.name for path in (work / "trials").iterdir())
        models = sorted(path.name for path in (work / "models").iterdir())
        result = {"killed": killed, "after_kill": after_kill, "problems": problems, "trials": trials}
        results.append(result | {"step": step, "models": models, "valid": valid_models(work)})
    sys.stdout.write(json.dumps(results))
    sys.exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

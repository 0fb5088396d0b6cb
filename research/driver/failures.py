"""The kinds of failure: a worker's exception as a kind and one line, and the limit of failures in a row."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import torch

from vae.config import ConfigError
from vae.data.dataset import DataError

if TYPE_CHECKING:
    from research.ledger.events import FailKind, RetryCause
    from research.ledger.log import Ledger

    # How often a trial may lose its worker without an epoch in between. Nodes come and go, which is not the trial's fault.
    from research.ledger.trial_view import TrialView

# How often a trial may lose its worker without an epoch in between. Nodes come and go, which is not the trial's fault.
MAX_LOST = 5
MAX_STUCK = 1  # each costs the whole deadline
# What PyTorch says in a plain RuntimeError when there is no memory.
_NO_MEMORY = ("DefaultCPUAllocator: can't allocate memory", "DefaultCPUAllocator: not enough memory")
_NO_GPU_MEMORY = ("CUDA out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")


@dataclass(frozen=True)
class Verdict:
    """The decision on a trial whose worker ended: it runs ``again`` for that cause, or it has failed as ``kind``."""

    again: RetryCause | None
    kind: FailKind
    reason: str


def judge(view: TrialView, cause: BaseException | None, *, lost: str | None, stuck: bool, share: float) -> Verdict:
    """Decide from the ledger only, so that a restarted driver decides the same.

    ``lost``: how the worker was lost, if it did not raise ``cause`` itself. ``stuck``: the watchdog ended it. ``share``: the
    share of a GPU that the sweep gives to each trial.
    """
    if stuck:
        reason = "no epoch for longer than --stuck-minutes allows"
        again = view.retries["stuck"] < MAX_STUCK
        return Verdict("stuck" if again else None, "stuck", reason if again else f"{reason}, {MAX_STUCK + 1} times")
    if lost is not None:
        again = view.retries["lost"] < MAX_LOST
        kind: FailKind = "out_of_memory" if "OutOfMemory" in lost else "lost"
        return Verdict(
            "lost" if again else None, kind, lost if again else f"{lost} {MAX_LOST + 1} times without an epoch between"
        )
    kind, reason = classify(cause)
    again = kind == "out_of_memory" and on_gpu(cause) and 0 < share < 1 and not view.whole_gpu
    return Verdict("out_of_memory" if again else None, kind, reason)


def classify(cause: BaseException | None) -> tuple[FailKind, str]:
    """Return the kind of failure of a worker's exception, and one line."""
    if cause is None:
        return "bug", "the worker failed without an exception"
    told = " ".join([str(cause), *getattr(cause, "__notes__", [])])
    line = f"{type(cause).__name__}: {' '.join(told.split())}".removesuffix(": ")
    if isinstance(cause, MemoryError) or on_gpu(cause) or any(said in told for said in _NO_MEMORY):
        return "out_of_memory", line
    if isinstance(cause, DataError):
        return "data", str(cause)
    if isinstance(cause, ConfigError):
        return "config", str(cause)
    return "bug", line


def on_gpu(cause: BaseException | None) -> bool:
    """Return True if the memory of a GPU ran out."""
    if isinstance(cause, torch.OutOfMemoryError):
        return True
    return isinstance(cause, RuntimeError) and any(said in str(cause) for said in _NO_GPU_MEMORY)


def too_many(ledger: Ledger) -> str | None:
    """Return a message if the last ``--max-failed`` trials of this session have all failed, else None."""
    most = ledger.settings.max_failed
    here = len(ledger.sessions) - 1
    last = [ledger.trials[number] for number in islice(reversed(ledger.standing.places), most)]
    ended = [view for view in reversed(last) if view.session == here]
    if len(ended) < most or any(view.status != "FAIL" for view in ended):
        return None
    return f"--max-failed {most}: the last {most} trials failed ({counted(ended)})"


def counted(views: list[TrialView]) -> str:
    """Return the number of each kind, the most frequent first, for example ``6 bug, 2 diverged``."""
    kinds = Counter(view.fail_kind or "unknown" for view in views)
    return ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())


def summary(ledger: Ledger) -> str | None:
    """Return the number of failures of each kind and the latest of the most frequent kind; None without failures."""
    failed = [view for view in ledger.trials.values() if view.status == "FAIL"]
    if not failed:
        return None
    (most, _), *_ = Counter(view.fail_kind for view in failed).most_common()
    last = [view for view in failed if view.fail_kind == most][-1]
    return f"failed: {counted(failed)}; e.g. trial {last.number}, {last.fail_kind}: {last.reason}"

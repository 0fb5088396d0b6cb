"""End a worker that does not answer, because it was stopped or hangs in a call that never returns."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import TYPE_CHECKING, Any

import ray
from ray._private.state import state  # there is no public way to an actor's process without Ray's dashboard
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

if TYPE_CHECKING:
    from ray.actor import ActorHandle


def end_worker(actor: ActorHandle[Any]) -> None:
    """Kill ``actor`` for Tune, and its process on the node where it runs.

    ``ray.kill`` alone is a message to the process, which one that is stopped takes when it is woken up: it could then
    still write into the trial's folders.
    """
    known: Any = state.actor_table(actor._actor_id.hex())  # noqa: SLF001 - see the import
    ray.kill(actor)
    if known.get("Pid"):
        on_its_node = NodeAffinitySchedulingStrategy(known["Address"]["NodeID"], soft=False)
        killer: Any = ray.remote(_kill).options(num_cpus=0, scheduling_strategy=on_its_node)
        killer.remote(known["Pid"])  # not waited for: the node may be gone


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)

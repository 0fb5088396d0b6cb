"""Watch Ray while a driver needs it, and get the driver out of Tune's loop when Ray is gone."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

import ray

from research.driver.engine import EngineLostError
from research.errors import UserError
from research.patience import patient
from research.terminal import complain

if TYPE_CHECKING:
    from collections.abc import Iterator


_LOOK_EVERY_S = 2.0
# Tune would wait for ever. The head of a cluster may be restarted within this time; a private Ray does not come back.
_CLUSTER_PATIENCE_S = 20.0
_PATIENCE_S = 5.0
_ANSWER_S = 10.0
_LEAVE_S = 15.0  # until the driver must have left its call to Ray
_SHUTDOWN_S = 5.0
_END_S = 60.0  # after that, until its views must be up to date (W&B has 30 s)
_gone = threading.Event()


class Stoppable(Protocol):
    """Receives the message that Ray is gone; ``research.driver.stopping.Stop`` is one."""

    signal: int | None
    lost: str | None
    how_to_go_on: str


@contextmanager
def watched_ray(address: str | None, stop: Stoppable) -> Iterator[None]:
    """Watch the Ray that this process is connected to until the block ends.

    Raises:
        EngineLostError: Ray died during the block. If the block cannot be interrupted, the process ends with exit code
            1.

    """
    watch: _Watch | None = None
    # A Ray client (ray://) sees neither head nor nodes. Its own connection fails when they are gone.
    if address is None or not address.startswith("ray://"):
        watch = _Watch(stop, head_patience_s=_PATIENCE_S if address is None else _CLUSTER_PATIENCE_S)
        watch.start()
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if watch is None or not (missing := watch.missing()):
            raise
        _gone.set()
        stop.lost = stop.lost or f"Ray is gone: {' and '.join(missing)} does not answer"
        raise EngineLostError(stop.lost) from error
    finally:
        if watch is not None:
            watch.block_ended.set()


def shut_down() -> None:
    """Call ``ray.shutdown``. If Ray is gone, do not wait for it long, because it waits for answers."""
    if not _gone.is_set():
        ray.shutdown()
        return
    last = threading.Thread(target=ray.shutdown, daemon=True)
    last.start()
    last.join(_SHUTDOWN_S)


class _Watch(threading.Thread):
    """Checks whether the head and the driver's own node still listen. Tune would wait for ever for a missing one.

    If the driver's own node is gone, Ray gives up the driver and ends its workers on every node.
    """

    def __init__(self, stop: Stoppable, *, head_patience_s: float) -> None:
        super().__init__(name="ray-watch", daemon=True)
        self.stop = stop
        self.block_ended = threading.Event()
        context = ray.get_runtime_context()
        host, _, port = context.gcs_address.rpartition(":")
        own = next(node for node in ray.nodes() if node["NodeID"] == context.get_node_id())
        self.places = {
            "its head": (host.strip("[]"), int(port), head_patience_s),
            "this driver's node": (own["NodeManagerAddress"], int(own["NodeManagerPort"]), _PATIENCE_S),
        }

    def run(self) -> None:
        since: dict[str, float] = {}
        while not self.block_ended.wait(_LOOK_EVERY_S):
            missing = self.missing()
            now = time.monotonic()
            since = {what: since.get(what, now) for what in missing}
            for what, patience_s in missing.items():
                # During a stop, do not wait for the head to come back: the same signal may have ended Ray, too.
                if now - since[what] >= (0.0 if self.stop.signal is not None else patience_s):
                    self.leave(f"{what} does not answer")
                    return

    def missing(self) -> dict[str, float]:
        """Return the parts of Ray that do not listen, each with the seconds in which it may come back."""
        found = {}
        for what, (host, port, patience_s) in self.places.items():
            try:
                socket.create_connection((host, port), timeout=_ANSWER_S).close()
            except OSError:
                found[what] = patience_s
        return found

    def leave(self, reason: str) -> None:
        """Get the driver out of Tune's loop, or end the process if that fails."""
        if self.block_ended.is_set():
            return
        _gone.set()
        self.stop.lost = f"Ray is gone: {reason}"
        # Print this now: Ray's own code ends the process a minute after its head has gone.
        complain(f"\n{self.stop.lost}\n{self.stop.how_to_go_on}")
        main = threading.main_thread().ident
        assert main is not None
        signal.pthread_kill(main, signal.SIGUSR1)
        if self.block_ended.wait(patient(_LEAVE_S)):
            time.sleep(patient(_END_S))
        os._exit(1 if self.stop.signal is None else 128 + self.stop.signal)

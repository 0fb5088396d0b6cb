"""Start Ray on a machine that may be busy, in several tries with growing timeouts. A signal stops the start.

Ray (2.60) gives a node 30 seconds to start; the number is fixed in its code. With a load of 20 on two cores this is
often too short, and each failed try leaves processes behind.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

import ray
from ray._private import node as ray_node
from ray._private import services, utils

from research import processes
from research.driver.engine import EngineDidNotStartError, StoppedWhileStartingError
from research.errors import STORAGE, UserError
from research.on_ray.watch import shut_down
from research.patience import busyness
from research.terminal import complain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from research.on_ray.watch import Stoppable

# The timeout in seconds of each try. The first is Ray's own.
PATIENCE_S = (30.0, 60.0, 90.0)
_LOOK_EVERY_S = 0.1
_LEAVE_S = 10.0  # after a stop request, until ray.init must return; otherwise the process ends
_END_S = 5.0  # for a process to end
# Timeouts of the raylet and of Ray's head that a busy machine exceeds.
_SETTINGS = {
    "RAY_agent_register_timeout_ms": "300000",
    "RAY_worker_register_timeout_seconds": "300",
    "RAY_health_check_failure_threshold": "20",
}


class NodeNotReady(Exception):
    """Raised when a node was not ready in time, or one of its processes ended."""


def start_ray(folder: Path, stop: Stoppable | None, **arguments: Any) -> None:  # noqa: ANN401 - of ray.init
    """Call ``ray.init`` in ``folder``, and retry it twice with longer timeouts.

    ``stop`` holds the signal that requested a stop, if any.

    Raises:
        EngineDidNotStartError: Ray did not start. None of its processes is left.
        StoppedWhileStartingError: ``stop`` has a signal. No process of Ray is left.

    """

    def stopping() -> int | None:
        return None if stop is None else stop.signal

    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    for number, patience_s in enumerate(PATIENCE_S, start=1):
        place = folder / ("r" if number == 1 else f"r{number}")
        try:
            with _own_node(patience_s, stopping), _left_when_stuck(folder, stop):
                ray.init(address="local", include_dashboard=False, _temp_dir=str(place), **arguments)
        except BaseException as error:
            remove_started(place)
            if stopping() is not None:
                raise StoppedWhileStartingError from None
            if not isinstance(error, Exception) or not _worth_another_try(error):
                raise
            line = " ".join(str(error).split())[:200] or type(error).__name__
            if number == len(PATIENCE_S):
                raise EngineDidNotStartError(
                    f"Ray did not start in {number} tries ({line}); the machine's load is {busyness():.1f} for each core: wait "
                    "until it is less busy, or use a cluster (--address), then resume"
                ) from None
            complain(f"Ray did not start ({line}): trying again ({number + 1} of {len(PATIENCE_S)})")
        else:
            return


def _worth_another_try(error: Exception) -> bool:
    """Raise errors that a retry cannot repair, such as wrong arguments and a full disk."""
    if isinstance(error, UserError | ValueError | TypeError | AttributeError):
        return False
    return not (isinstance(error, OSError) and error.errno in STORAGE)


class _OwnNode(ray_node.Node):
    """Ray's node without its dashboard. The wait for its start is in Python, so that a signal can end it.

    Ray always starts its dashboard, its autoscaler and its log monitor, and waits for them.
    """

    patience_s: ClassVar[float] = PATIENCE_S[0]
    stopping: ClassVar[Callable[[], int | None]] = staticmethod(lambda: None)

    def start_api_server(self, *_: object, **__: object) -> None:
        """Start no dashboard."""

    def start_monitor(self, *_: object, **__: object) -> None:
        """Start no autoscaler."""

    def start_log_monitor(self, *_: object, **__: object) -> None:
        """Start no log monitor: the output of workers stays in their files."""

    def start_ray_processes(self) -> None:
        """Start the raylet and wait until the head knows it. Ray's own 30 seconds begin after this."""
        super().start_ray_processes()  # type: ignore[no-untyped-call] # Ray's is untyped
        until = time.monotonic() + self.patience_s
        while True:
            _refuse_stopped(type(self).stopping)
            with contextlib.suppress(RuntimeError):
                services.get_node(self.gcs_address, self._node_id)
                return
            _refuse_late(until, "its node was not ready", self.patience_s)
            if dead := [kind for kind, _ in self.dead_processes()]:  # type: ignore[no-untyped-call] # as above
                raise NodeNotReady(f"its process {dead[0]} ended")
            time.sleep(_LOOK_EVERY_S)


def _refuse_stopped(stopping: Callable[[], int | None]) -> None:
    if stopping() is not None:
        raise StoppedWhileStartingError


def _refuse_late(until: float, what: str, patience_s: float) -> None:
    if time.monotonic() > until:
        raise NodeNotReady(f"{what} within {patience_s:.0f} s")


@contextmanager
def _own_node(patience_s: float, stopping: Callable[[], int | None]) -> Iterator[None]:
    """Replace Ray's node by ours, and its wait for the head's port by one that can be interrupted."""
    node_module, utils_module = cast("Any", ray_node), cast("Any", utils)
    agent = utils_module.get_dashboard_dependency_error
    node, wait = node_module.Node, node_module.wait_for_persisted_port

    def wait_for_port(session_dir: str, node_id: str, name: str, timeout_ms: int = 30_000, **more: Any) -> int:  # noqa: ANN401 - Ray's
        file = Path(session_dir) / node_module.get_port_filename(node_id, name)
        until = time.monotonic() + patience_s
        while timeout_ms > 0 and not file.exists():
            _refuse_stopped(stopping)
            _refuse_late(until, "its head was not ready", patience_s)
            time.sleep(_LOOK_EVERY_S)
        return int(wait(session_dir, node_id, name, timeout_ms=timeout_ms, **more))

    changed = type("Node", (_OwnNode,), {"patience_s": patience_s, "stopping": staticmethod(stopping)})
    try:
        node_module.Node, node_module.wait_for_persisted_port = changed, wait_for_port
        # The node then starts the small agent, as in an installation of Ray without its dashboard.
        utils_module.get_dashboard_dependency_error = lambda: ImportError("not wanted")
        yield
    finally:
        node_module.Node, node_module.wait_for_persisted_port = node, wait
        utils_module.get_dashboard_dependency_error = agent


@contextmanager
def _left_when_stuck(folder: Path, stop: Stoppable | None) -> Iterator[None]:
    """End this process if a signal has come and ray.init does not return, because it waits outside Python code.

    Python runs a signal handler only between two of its own instructions. A pipe shows the signal at once.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    done = threading.Event()

    def watch() -> None:
        while came := os.read(reader, 1):
            number = came[0]
            if number in {signal.SIGINT, signal.SIGTERM} and not done.wait(_LEAVE_S):
                remove_started(folder)
                shutil.rmtree(folder, ignore_errors=True)
                way_on = "" if stop is None else f". {stop.how_to_go_on}"
                sys.stderr.write(f"\nstopped while Ray was starting; nothing of it is left{way_on}\n")
                sys.stderr.flush()
                os._exit(128 + number)

    thread = threading.Thread(target=watch, name="ray-start", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        signal.set_wakeup_fd(before)
        os.close(writer)
        thread.join()
        os.close(reader)


def remove_started(folder: Path, *, grace_s: float = 0.0) -> None:
    """End all processes that Ray started for ``folder``, with their children, and remove the folder.

    The processes are found by the folder on their command lines, because Ray forgets those of a node that did not
    start. They have ``grace_s`` seconds to end by themselves: a raylet ends its agents, but agents outlive a killed
    raylet.
    """
    with contextlib.suppress(Exception):  # a partly started Ray can raise anything
        shut_down()
    until = time.monotonic() + grace_s
    while processes.naming(folder) and time.monotonic() < until:
        time.sleep(_LOOK_EVERY_S)
    until = time.monotonic() + _END_S
    while (found := processes.naming(folder)) and time.monotonic() < until:
        processes.kill(found)
        time.sleep(_LOOK_EVERY_S)
    shutil.rmtree(folder, ignore_errors=True)

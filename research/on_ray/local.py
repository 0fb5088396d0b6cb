"""A sweep's own Ray: on this machine only, behind its own token, in a folder that only its user can enter.

Anybody who can connect to Ray can run code as its user. By default Ray (2.60) listens on every network interface, keeps
one token for all clusters of a user in a file that others may read, and makes its folders writable by everybody.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray._private import ray_constants
from ray._private.authentication.authentication_utils import is_token_auth_enabled
from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined] # its stub leaves it out

from research.errors import UserError
from research.on_ray.import_path import import_arguments
from research.on_ray.starting import remove_started, start_ray
from research.on_ray.watch import shut_down
from research.planning.free_space import check_temporary
from research.store import scratch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from research.on_ray.watch import Stoppable

LOOPBACK = "127.0.0.1"
ENDING_S = 5.0  # for Ray's processes to end by themselves
_PREFIX = "rr-"
# Variables that the user may have set for other clusters. They are ignored: this Ray is private and has its own token.
_THEIRS = ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")


@contextmanager
def private_ray(stop: Stoppable | None = None, **arguments: Any) -> Iterator[None]:  # noqa: ANN401 - of ray.init
    """Start a Ray for this process. At the end of the context it is stopped and its folder is removed.

    ``stop`` holds the signal that requested a stop, if any. It is checked while Ray starts.

    Raises:
        UserError: Ray did not start, or this version of Ray cannot be kept private.
        StorageError: its disk has no room.
        StoppedWhileStartingError: ``stop`` has a signal.

    """
    remove_leftovers()
    check_temporary()
    # The path is short because Ray puts sockets there, whose paths have at most 107 characters. Only this user can
    # enter the folder (0700). Ray opens the folder that it is given to everybody, so it is given one inside.
    folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))
    held = os.open(folder, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)  # the kernel releases it when this process dies
    token = folder / "token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32), encoding="ascii")
    before = {name: os.environ.pop(name, None) for name in _THEIRS}
    cluster = ray_constants.ENABLE_RAY_CLUSTER
    try:
        os.environ["RAY_AUTH_TOKEN_PATH"] = str(token)  # workers and Ray's own processes inherit it
        AuthenticationTokenLoader.instance().reset_cache()
        # All processes of Ray listen at the address of its node. Ray accepts a node at 127.0.0.1 only if it cannot make
        # clusters: RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0, which it read when it was imported.
        ray_constants.ENABLE_RAY_CLUSTER = False
        start_ray(folder, stop, _node_ip_address=LOOPBACK, **import_arguments(), **arguments)
        if ray.util.get_node_ip_address() != LOOPBACK or not asks_for_token():
            raise UserError(
                f"Ray {ray.__version__} does not keep to {LOOPBACK} behind a token: others could run code as you; "
                "install the version of constraints.txt"
            )
        yield
    finally:
        shut_down()
        ray_constants.ENABLE_RAY_CLUSTER = cluster
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        AuthenticationTokenLoader.instance().reset_cache()
        remove_started(folder, grace_s=ENDING_S)
        os.close(held)


def asks_for_token() -> bool:
    """Return True if the Ray that this process is connected to asks for a token."""
    return is_token_auth_enabled()


def remove_leftovers() -> None:
    """Remove the folders of Ray that killed drivers have left behind."""
    scratch.remove_leftovers(_PREFIX)

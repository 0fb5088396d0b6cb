"""An existing Ray cluster, joined for one session."""

from __future__ import annotations

import os
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import ray
from ray._private.authentication.authentication_token_setup import maybe_enable_token_auth_if_token_available
from ray.exceptions import RayError

from research.errors import UserError
from research.on_ray.import_path import import_arguments
from research.on_ray.watch import shut_down
from research.patience import patient

if TYPE_CHECKING:
    from collections.abc import Iterator

JOIN_S = 90.0  # Ray itself waits for ever if something else than Ray listens at the address


@contextmanager
def joined_ray(address: str, variables: dict[str, str], **how: Any) -> Iterator[None]:  # noqa: ANN401 - ray.init's
    """Connect to the cluster at ``address``. Its workers get the environment ``variables``.

    Raises:
        UserError: the connection failed: there is no Ray, another version, or another token. If Ray does not return
            within ``JOIN_S``, the process ends with this message and exit code 2; a sweep can be resumed.

    """
    # A Ray client (ray://) sends no path: its driver is on the head.
    how |= {} if address.startswith("ray://") else import_arguments()
    seconds = patient(JOIN_S)
    late = threading.Timer(seconds, _give_up, [address, seconds])
    late.daemon = True
    late.start()
    try:
        try:
            ray.init(address=address, runtime_env={"env_vars": variables}, **how)
        except ConnectionError:
            # Ray 2.60 sends its token only if RAY_AUTH_MODE is set. It is set only now, because workers of a cluster
            # without tokens do not start with it.
            if not maybe_enable_token_auth_if_token_available(warn_if_disabled=False):
                raise
            ray.init(address=address, runtime_env={"env_vars": variables}, **how)
    except (ConnectionError, ValueError, RuntimeError, RayError) as error:
        line = " ".join(str(error).split())
        # Something listens there (see preflight). Ray reports a missing token as a failed connection.
        token = "; if it asks for a token: RAY_AUTH_MODE=token, RAY_AUTH_TOKEN_PATH" * isinstance(
            error, ConnectionError
        )
        raise UserError(f"no Ray cluster that can be used at --address {address!r}: {line}{token}") from None
    finally:
        late.cancel()
    try:
        yield
    finally:
        shut_down()


def _give_up(address: str, seconds: float) -> None:
    sys.stderr.write(
        f"error: no Ray cluster answers at --address {address!r}: something listens there and said nothing for {seconds:.0f} "
        "seconds; correct the address\n"
    )
    sys.stderr.flush()
    os._exit(2)

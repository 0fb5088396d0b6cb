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

JOIN_S = 90.0  # Ray itself waits without end for an answer from something that listens and is no Ray


@contextmanager
def joined_ray(address: str, variables: dict[str, str], **how: Any) -> Iterator[None]:  # noqa: ANN401 - ray.init's
    """Connect to the cluster at ``address``; its workers get the environment ``variables``.

    Raises:
        UserError: no connection comes about: no Ray, another version, another token. Where Ray does not come back
            within ``JOIN_S`` the process ends with that line and exit code 2; what is in a ledger can be resumed.

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
            # Ray 2.60 does not show the token that is here unless RAY_AUTH_MODE says so. Only now: with it, workers of
            # a cluster that asks for none don't come up.
            if not maybe_enable_token_auth_if_token_available(warn_if_disabled=False):
                raise
            ray.init(address=address, runtime_env={"env_vars": variables}, **how)
    except (ConnectionError, ValueError, RuntimeError, RayError) as error:
        line = " ".join(str(error).split())
        # Something listens there (preflight), and what it refuses for want of a token Ray reports as no connection.
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

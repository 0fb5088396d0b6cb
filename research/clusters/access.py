"""Access to the job server of a Ray cluster.

CLUSTER is a launcher's file (for ``ray up cluster.yaml``) or the address of a dashboard (``http://HOST:8265``). With a
file the port of the dashboard is forwarded through SSH while it is needed, as ``ray dashboard`` does.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from research.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ray.job_submission import JobSubmissionClient

FORWARD_SECONDS = 180.0  # until the dashboard's port answers: the launcher first asks the cloud for the head's address
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


class LostConnection(Exception):
    """Raised when the cluster cannot be reached. The jobs on it go on."""


def is_address(cluster: str) -> bool:
    """Return True if ``cluster`` is the address of a dashboard rather than a launcher's file."""
    return cluster.startswith(("http://", "https://"))


def is_cluster(text: str) -> bool:
    """Return True if the argument of a command names a cluster rather than a sweep's directory."""
    return is_address(text) or text.endswith((".yaml", ".yml"))


def check_cluster(cluster: str) -> None:
    """Check that ``cluster`` is a launcher's file or an address, and that Ray's job client is installed.

    Raises:
        UserError: one of these is not the case; the message has the remedy.

    """
    if not is_address(cluster):
        if not os.path.isfile(cluster):  # noqa: PTH113 - what was typed is shown as it was typed
            raise UserError(
                f"no cluster {cluster!r}: give a launcher's file (cluster.yaml) or the dashboard's address (http://HOST:8265)"
            )
        if shutil.which("ssh") is None:
            raise UserError("the way to a cluster of a launcher's file goes through ssh, and there is none: install it")
    if importlib.util.find_spec("aiohttp") is None:
        raise UserError("Ray's job client is not installed: uv pip install -c constraints.txt -e '.[cluster]'")


@contextmanager
def job_client(cluster: str) -> Iterator[JobSubmissionClient]:
    """Yield a client of the cluster's job server. A forwarded port is closed at the end.

    Raises:
        UserError: the server refuses our token.
        LostConnection: nothing answers, or the answer is not that of a job server.

    """
    from ray.exceptions import AuthenticationError  # noqa: PLC0415 - seconds
    from ray.job_submission import JobSubmissionClient  # noqa: PLC0415

    for talks in ("dashboard_sdk", "job.sdk"):
        logging.getLogger(f"ray.dashboard.modules.{talks}").setLevel(logging.WARNING)
    logging.getLogger("ray._private.runtime_env.packaging").setLevel(logging.WARNING)
    # Ray's client would prefer these variables to the address that it is given.
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        os.environ.pop(name, None)
    with dashboard(cluster) as address:
        try:
            client = JobSubmissionClient(address)
        except AuthenticationError as error:
            raise UserError(
                f"cluster {cluster!r} doesn't take this machine's token (~/.ray/auth_token or RAY_AUTH_TOKEN_PATH must be the "
                f"cluster's): {one_line(error)[:200]}"
            ) from None
        except (OSError, RuntimeError) as error:
            raise LostConnection(f"no job server answers there: {one_line(error)[:300]}") from None
        yield client


@contextmanager
def dashboard(cluster: str) -> Iterator[str]:
    """Yield the address at which this machine reaches the dashboard of the cluster."""
    if is_address(cluster):
        yield cluster
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryFile("w+", errors="replace") as said:
        # It gets a session of its own, so that Ctrl-C reaches only us and all its processes can be ended together.
        forward = subprocess.Popen(  # noqa: S603 - our own interpreter
            ray_command("dashboard", cluster, "--port", str(port)),
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            deadline = time.monotonic() + FORWARD_SECONDS
            while not _answers(port):
                if forward.poll() is not None or time.monotonic() > deadline:
                    said.seek(0)
                    raise LostConnection(f"no way to the head of {cluster}: {_last_words(said.read())}")
                time.sleep(0.2)
            yield f"http://127.0.0.1:{port}"
        finally:
            with suppress(ProcessLookupError):
                os.killpg(forward.pid, signal.SIGTERM)
            forward.wait()


def ray_command(*arguments: str) -> list[str]:
    """Return the command line of ``ray`` in this environment."""
    return [sys.executable, "-P", "-m", "ray.scripts.scripts", *arguments]


def rsync_down(cluster: str, source: str, target: Path, exclude: list[str]) -> None:
    """Copy the content of the folder ``source`` on the head into ``target``, which is empty or holds an earlier copy.

    Raises:
        UserError: the folder does not exist, or the cluster has no head.
        LostConnection: rsync was interrupted. The next call continues.

    """
    import yaml  # noqa: PLC0415 - one verb alone needs it

    if shutil.which("rsync") is None:
        raise UserError("sweeps come home through rsync, and there is none: install it here and on the head")
    with open(cluster, encoding="utf-8") as file:  # noqa: PTH123 - what was typed
        config: dict[str, Any] = yaml.safe_load(file)
    # The launcher reads the exclusions only from its file. It would also refuse mounts that do not exist here.
    config |= {"rsync_exclude": exclude, "rsync_filter": [], "file_mounts": {}}
    with tempfile.NamedTemporaryFile("w", suffix=".yaml", encoding="utf-8") as changed:
        yaml.safe_dump(config, changed)
        changed.flush()
        done = subprocess.run(  # noqa: S603 - our own interpreter
            ray_command("rsync-down", changed.name, f"{source.rstrip('/')}/", f"{target}/"),
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            check=False,
        )
    said = done.stdout + done.stderr
    if done.returncode != 0:
        if "change_dir" in said and "No such file" in said:
            raise UserError(f"there is no {source} on the head of {cluster}; is --storage the sweep's?")
        raise LostConnection(f"{source} did not arrive: {_last_words(said)}")


def one_line(error: object) -> str:
    """Return the text of an exception as one line."""
    return " ".join(str(error).split())


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False


def _last_words(text: str) -> str:
    """Return the end of a command's output as one line."""
    lines = [line.strip() for line in _ESCAPES.sub("", text).splitlines() if line.strip()]
    return " ".join(lines[-3:])[-400:] or "it said nothing"

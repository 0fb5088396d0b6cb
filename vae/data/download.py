"""Fetching a set with torchvision so that a failure is quick, quiet, and leaves nothing behind.

torchvision writes straight into its final place, with no time limit, and draws progress bars. Here it writes
into a staging directory, from which complete files are renamed into place.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import logging
import queue
import socket
import tempfile
import threading
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from vae.data.dataset import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_PROBE_SECONDS = 5.0  # for any server to accept a connection, looking its name up included
_STALL_SECONDS = 15.0  # for a server that accepted one to send its next byte

_LOG = logging.getLogger(__name__)


class DownloadError(DataError):
    """Why a set could not be fetched. The caller adds which set, and what to do."""


def download(fetch: Callable[[Path], object], urls: Sequence[str], files: Sequence[Path], directory: Path) -> None:
    """Put ``files`` (relative paths) into ``directory``, which is made if need be.

    ``fetch`` is called with an empty directory and must leave the files there, under the same relative paths,
    or raise. ``urls`` are those that it uses: it is not called when none of their servers answers.

    Raises:
        DownloadError: nothing was fetched, and nothing is left behind.

    """
    if refusal := _refusal(urls):
        raise DownloadError(refusal)
    _LOG.info("downloading %s into %s", urls[0], directory)
    try:
        with _staging(directory) as staging, _quiet_and_timed():
            fetch(staging)
            for file in files:
                (staging / file).stat()  # all or none: a missing one is found before any is moved
            for file in files:
                (directory / file).parent.mkdir(parents=True, exist_ok=True)
                (staging / file).replace(directory / file)
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        raise DownloadError(" ".join(str(error).split()) or type(error).__name__) from error


@contextlib.contextmanager
def _staging(directory: Path) -> Iterator[Path]:
    """A temporary directory beside the files' final place; on failure, ``directory`` too is as it was."""
    made = [p for p in (directory, *directory.parents) if not p.exists()]
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".download-", dir=directory) as staging:
            yield Path(staging)
    except BaseException:
        for path in made:
            # Not ours to remove if somebody else has put something there meanwhile.
            with contextlib.suppress(OSError):
                path.rmdir()
        raise


@contextlib.contextmanager
def _quiet_and_timed() -> Iterator[None]:
    """No progress bars, and no wait without an end: torchvision has a setting for neither."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_STALL_SECONDS)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        socket.setdefaulttimeout(before)


def _refusal(urls: Sequence[str]) -> str | None:
    """Why no server of ``urls`` can be reached, or None when one can.

    All are tried at once, in threads, because neither a name look-up nor a server's list of addresses can be
    given a time limit. Behind a proxy it is the proxy that connects, so nothing is tried.
    """
    if {"http", "https"} & urllib.request.getproxies().keys():
        return None
    answers: queue.Queue[str | None] = queue.Queue()
    for url in urls:
        threading.Thread(target=_probe, args=(url, answers), daemon=True).start()
    deadline = time.monotonic() + _PROBE_SECONDS
    refusal = ""
    for _ in urls:
        try:
            answer = answers.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            return refusal or f"no answer from {urlsplit(urls[0]).hostname} within {_PROBE_SECONDS:g} seconds"
        if answer is None:
            return None
        refusal = refusal or answer
    return refusal


def _probe(url: str, answers: queue.Queue[str | None]) -> None:
    """Puts None when the server of ``url`` accepts a connection, else the reason."""
    server = urlsplit(url)
    port = server.port or (443 if server.scheme == "https" else 80)
    try:
        socket.create_connection((server.hostname or "", port), timeout=_PROBE_SECONDS).close()
    except OSError as error:
        answers.put(f"{server.hostname}: {error.strerror or error}")
    else:
        answers.put(None)

"""Downloading a set with torchvision so that a failure is fast and quiet, and leaves no files.

torchvision writes directly into the final folder, without a timeout, and draws progress bars. Here it writes into a
staging directory, and complete files are moved from there.
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

_PROBE_SECONDS = 5.0  # timeout for a connection to any server, including the name lookup
_STALL_SECONDS = 15.0  # timeout for the next byte of a connected server

_LOG = logging.getLogger(__name__)


class DownloadError(DataError):
    """A set could not be downloaded. The message has the reason; the caller adds the set and the remedy."""


def download(fetch: Callable[[Path], object], urls: Sequence[str], files: Sequence[Path], directory: Path) -> None:
    """Download ``files`` (relative paths) into ``directory``, which is created if needed.

    ``fetch`` is called with an empty directory. It must write the files there, under the same relative paths, or raise. It
    uses ``urls``, and is not called if none of their servers answers.

    Raises:
        DownloadError: The download failed. It leaves no files.

    """
    if refusal := _refusal(urls):
        raise DownloadError(refusal)
    _LOG.info("downloading %s into %s", urls[0], directory)
    try:
        with _staging(directory) as staging, _quiet_and_timed():
            fetch(staging)
            for file in files:
                (staging / file).stat()  # all or none: a missing file is found before any is moved
            for file in files:
                (directory / file).parent.mkdir(parents=True, exist_ok=True)
                (staging / file).replace(directory / file)
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        raise DownloadError(" ".join(str(error).split()) or type(error).__name__) from error


@contextlib.contextmanager
def _staging(directory: Path) -> Iterator[Path]:
    """Yield a temporary directory in ``directory``. After a failure the folders that were created are removed."""
    made = [p for p in (directory, *directory.parents) if not p.exists()]
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".download-", dir=directory) as staging:
            yield Path(staging)
    except BaseException:
        for path in made:
            # rmdir fails, as it should, if another process has put a file there meanwhile.
            with contextlib.suppress(OSError):
                path.rmdir()
        raise


@contextlib.contextmanager
def _quiet_and_timed() -> Iterator[None]:
    """Suppress progress bars and set a timeout. torchvision has no setting for either."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_STALL_SECONDS)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        socket.setdefaulttimeout(before)


def _refusal(urls: Sequence[str]) -> str | None:
    """Return the reason why no server of ``urls`` can be reached, or None if one can.

    All servers are tried at once, in threads, because a name lookup has no timeout. Behind a proxy nothing is tried,
    because only the proxy connects.
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
    """Put None into ``answers`` if the server of ``url`` accepts a connection, else the reason."""
    server = urlsplit(url)
    port = server.port or (443 if server.scheme == "https" else 80)
    try:
        socket.create_connection((server.hostname or "", port), timeout=_PROBE_SECONDS).close()
    except OSError as error:
        answers.put(f"{server.hostname}: {error.strerror or error}")
    else:
        answers.put(None)

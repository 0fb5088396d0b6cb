"""One driver per sweep on an object store, which has no locks: an object that says who drives, written again and again.

It keeps people from starting two drivers by mistake. What makes two impossible is the ledger: each event is created
exclusively by the store, so that of two drivers the second to write an event's number ends there.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from research.errors import StorageError, UserError
from research.store.layout import LOCK
from research.store.mirror import store_of
from research.store.scratch import alive

if TYPE_CHECKING:
    from types import TracebackType

    from research.store.object_store import ObjectStore

RENEW_SECONDS = 15.0
STALE_SECONDS = 60.0  # watched without a renewal: its holder is dead


class Lease:
    """Context manager that holds the sweep that ``directory`` mirrors; of any other directory it does nothing.

    Entering raises ``UserError`` naming the holder when it is seen to be alive. A holder that released it, died on
    this machine, or does not renew it while we watch for ``STALE_SECONDS``, is succeeded.
    """

    def __init__(self, directory: str | Path) -> None:
        self.store = store_of(directory)
        self._token = secrets.token_hex(8)
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        if self.store is None:
            return self
        while not self.store.create(LOCK, self._text()):
            holder = _read(self.store)
            if holder is not None:
                _wait_until_dead(self.store, holder)
                self.store.remove([LOCK])
        self._thread = threading.Thread(target=self._renew, args=(self.store,), name="lease", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if self.store is None or self._thread is None or isinstance(error, StorageError):
            return  # a store that is gone is not asked again: the lease goes stale by itself
        self._thread.join(timeout=RENEW_SECONDS)
        with contextlib.suppress(StorageError):
            if (_read(self.store) or {}).get("token") == self._token:
                self.store.remove([LOCK])

    def _renew(self, store: ObjectStore) -> None:
        while not self._ended.wait(RENEW_SECONDS):
            with contextlib.suppress(StorageError):
                if (_read(store) or {}).get("token") != self._token:
                    return  # succeeded by another: our next event will be refused
                store.write(LOCK, self._text())

    def _text(self) -> bytes:
        facts = {"pid": os.getpid(), "host": socket.gethostname(), "machine": _machine(), "token": self._token}
        return json.dumps({**facts, "time": datetime.now(UTC).isoformat(timespec="milliseconds")}).encode()


_seen: dict[str, tuple[dict[str, Any], float]] = {}  # by the store's address: the lease, and since when it is unchanged


def lease_holder(directory: str | Path) -> str | None:
    """Return in words who drives the sweep that ``directory`` mirrors; None where nobody does.

    The clocks of two machines need not agree. So the time in the lease is not compared with this machine's clock: the
    holder is taken for dead when this process has seen the same lease for longer than ``STALE_SECONDS``.
    """
    store = store_of(directory)
    holder = None if store is None else _read(store)
    if store is None or holder is None or _died_here(holder):
        return None
    now = time.monotonic()
    lease, since = _seen.get(store.url, ({}, now))
    if lease != holder:
        _seen[store.url], since = (holder, now), now
    return None if now - since > STALE_SECONDS else _words(holder)


def _wait_until_dead(store: ObjectStore, holder: dict[str, Any]) -> None:
    """Return when the lease may be taken; raise ``UserError`` when its holder lives, whatever its clock says."""
    if _died_here(holder):
        return
    sys.stderr.write(
        f"{store.url} was last held by {_words(holder)}: watching for {STALE_SECONDS:.0f} s whether it is alive\n"
    )
    sys.stderr.flush()
    until = time.monotonic() + STALE_SECONDS
    while time.monotonic() < until:
        time.sleep(min(2.0, STALE_SECONDS / 10))
        now = _read(store)
        if now is None:
            return  # released
        if now != holder:
            raise UserError(f"{store.url} is in use by {_words(now)}: wait for it, or stop it first")


def _read(store: ObjectStore) -> dict[str, Any] | None:
    try:
        holder = json.loads(store.read(LOCK))
    except FileNotFoundError:
        return None
    except ValueError:
        holder = {}
    return holder if isinstance(holder, dict) else {}


def _words(holder: dict[str, Any]) -> str:
    if "pid" not in holder:
        return "another process"
    return f"process {holder['pid']} on {holder.get('host')} (renewed {holder.get('time')})"


def _died_here(holder: dict[str, Any]) -> bool:
    """Return True if the holder was a process of this machine that has ended, so that nobody has to wait for it."""
    pid = holder.get("pid")
    return holder.get("machine") == _machine() and type(pid) is int and pid > 0 and not alive(pid)


def _machine() -> str:
    """This boot of this machine, and the numbering of processes that its processes see; "" where unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return f"unknown {secrets.token_hex(4)}"  # equal to none

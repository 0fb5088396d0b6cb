"""Data sets that lie in an object store: copied once to each machine, for all its processes."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from typing import TYPE_CHECKING

from research.errors import StorageError, UserError
from research.paths import whole
from research.store.mirror import cache_root
from research.store.object_store import SCHEMES, ObjectStore, is_url, parse_url, url_of

if TYPE_CHECKING:
    from pathlib import Path


def data_directory(text: str | Path | None) -> Path | None:
    """A data directory as this machine has it: a path as it is, an address as the copy of all that lies below it.

    The copy is in ``CACHE/data/SCHEME/BUCKET/FOLDER/VERSION``, where the version is a hash of the store's listing: other
    files there are another copy. The first process of a machine that asks copies, the others wait for it.

    Raises:
        UserError: nothing lies there. StorageError: the store can't be read.

    """
    if text is None or not is_url(str(text)):
        return None if text is None else whole(text)
    parts = parse_url(str(text))
    url = url_of(parts)
    place = cache_root().joinpath("data", *parts)
    store = ObjectStore(url)
    listing = store.listing()
    if not listing:
        raise UserError(f"--data-dir {url!r} holds nothing: put the data sets there, or correct the address")
    version = hashlib.sha256(json.dumps(listing, sort_keys=True).encode()).hexdigest()[:16]
    target = place / f"v-{version}"
    if target.is_dir():
        return target
    place.mkdir(parents=True, exist_ok=True)
    with (place / ".lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # the kernel lets go of it when this process dies
        for leftover in place.glob(".*.tmp"):
            shutil.rmtree(leftover, ignore_errors=True)
        if not target.is_dir():
            temporary = place / f".{version}.{os.getpid()}.tmp"
            temporary.mkdir()
            store.download(temporary)
            if missing := [name for name in sorted(listing) if not (temporary / name).is_file()]:
                raise StorageError(f"{url} changed while it was copied ({missing[0]!r} is gone): try again")
            temporary.rename(target)
    return target


def chosen_directory(text: str | Path | None) -> Path | None:
    """Return :func:`data_directory` of ``text``, or of ``$RESEARCH_DATA_DIR`` where none was given; None without either."""
    return data_directory(text or os.environ.get("RESEARCH_DATA_DIR") or None)


def data_address(directory: Path | None) -> str | None:
    """Return the data directory as a sweep records it, so that every node finds it: the store's address for a copy."""
    if directory is None:
        return None
    whole = directory.absolute()
    try:
        parts = whole.relative_to(cache_root() / "data").parts[:-1]
    except ValueError:
        return str(whole)
    return url_of(parts) if parts and parts[0] in SCHEMES else str(whole)

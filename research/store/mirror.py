"""The place of a sweep: a directory, or a folder in an object store with a mirror on each machine that reads it.

The driver and every verb work on a local directory. Of a sweep at ``s3://bucket/sweeps/NAME`` that is its mirror,
``CACHE/sweeps/s3/bucket/sweeps/NAME``: the path alone says what it mirrors. An event is in the store before it is in
the mirror; checkpoints and models are in the store before a row names them. So the mirror can be lost at any time.

``CACHE``: ``$RESEARCH_CACHE_DIR``, else ``$XDG_CACHE_HOME/vae-research``, else ``~/.cache/vae-research``.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from research.errors import StorageError, UserError
from research.paths import here, whole
from research.store.layout import MANIFEST, NAMES, SweepFolder, is_event, is_kept
from research.store.object_store import SCHEMES, ObjectStore, is_url, parse_url, url_of
from research.store.scratch import alive

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

_TRIAL = re.compile(r":\d{1,9}$")  # after a sweep's address: one of its trials
_FIRST_EVENT = str(NAMES.event(0))
_MODELS = f"{NAMES.models}/"
_FINALISTS = str(NAMES.finalists.path)
_MAY_CHANGE = str(NAMES.test_summary)  # written again with each look
_AT_ONCE = 500  # objects that are fetched side by side and held in memory


def cache_root() -> Path:
    """The folder of this machine's copies: mirrors, data sets, a worker's scratch."""
    named = os.environ.get("RESEARCH_CACHE_DIR")
    if named:
        return whole(named)
    base = os.environ.get("XDG_CACHE_HOME")
    return (whole(base) if base else Path.home() / ".cache").absolute() / "vae-research"


def mirror_of(url: str) -> Path:
    """Return the path of a store folder's mirror on this machine, whether it exists or not. The store is not contacted.

    Raises:
        UserError: the address is none.

    """
    return cache_root().joinpath("sweeps", *parse_url(url))


def store_of(directory: str | Path) -> ObjectStore | None:
    """The store that ``directory`` mirrors, or None: it is the place itself."""
    try:
        parts = Path(directory).absolute().relative_to(cache_root() / "sweeps").parts
    except ValueError:
        return None
    if len(parts) < 2 or parts[0] not in SCHEMES:  # noqa: PLR2004 - scheme and bucket
        return None
    return ObjectStore(url_of(parts))


def address(directory: Path) -> str:
    """Return what a user types for ``directory``: the store's address for a mirror, else the path."""
    store = store_of(directory)
    return str(directory) if store is None else store.url


def relative(path: Path) -> str:
    """``path`` from here where it lies below, else whole; what mirrors an object store by its address there.

    It can be typed again as it is: what would be taken for an option or a home directory begins with ``./``.
    """
    if (store := store_of(path)) is not None:
        return store.url
    try:
        shown = str(path.relative_to(here()))
    except ValueError:
        shown = str(path)
    return f"./{shown}" if shown.startswith(("-", "~")) else shown


def place(text: str | Path) -> Path:
    """``--storage`` as a path: of an address, where its mirror is. Nothing is asked of the store."""
    return mirror_of(str(text)) if is_url(str(text)) else whole(text)


def local(text: str | Path) -> Path:
    """A sweep, or a model or trial (``NAME:7``) in one, as this machine has it.

    A path is returned as it is, and an address after its mirror was renewed.

    Raises:
        UserError: there is no sweep at the address. StorageError: the store can't be read.

    """
    if not is_url(str(text)):
        return whole(text)
    sweep, _, model = url_of(parse_url(str(text))).partition(f"/{_MODELS}")
    trial = "" if model else _TRIAL.search(sweep)
    sweep = sweep.removesuffix(trial[0] if trial else "")
    mirror = mirror_of(sweep)
    pull(mirror)
    if model:
        return SweepFolder(mirror).models / model
    return mirror.with_name(f"{mirror.name}{trial[0]}") if trial else mirror


def pull(directory: Path) -> None:
    """Bring a mirror up to its store: all events, models, looks; of a path that is no mirror nothing.

    Raises:
        UserError: no sweep is there, or the mirror is of another one than the store holds.

    """
    store = store_of(directory)
    if store is not None:
        names = store.names()
        if _FIRST_EVENT not in names:
            raise UserError(f"{store.url} is not a sweep (it has no ledger): correct the address")
        _pull(directory, store, set(names))


def _pull(directory: Path, store: ObjectStore, names: set[str]) -> None:
    events = sorted(name for name in names if is_event(name))
    here = [str(path.relative_to(directory)) for path in SweepFolder(directory).events()]
    # Each event holds the hash of the one before: where the last is equal, all are.
    if here and (here[-1] not in names or store.read(here[-1]) != _read(directory / here[-1])):
        raise UserError(
            f"{directory} is the mirror of another sweep than {store.url} holds now: move it away, then try again"
        )
    # In order of events: whoever follows the mirror meanwhile sees no gap.
    _fetch(directory, store, [name for name in events if name not in set(here)])
    whole = {name.rpartition("/")[0] for name in names if name.endswith(f"/{MANIFEST}")}
    others = [
        name
        for name in sorted(names, key=lambda name: (name.endswith(MANIFEST), name))
        if is_kept(name)
        and (not name.startswith(_MODELS) or "/".join(name.split("/")[:2]) in whole)
        and (name == _MAY_CHANGE or not (directory / name).exists())
    ]
    _fetch(directory, store, others)
    nested = {name.removeprefix(f"{_FINALISTS}/") for name in names if name.startswith(f"{_FINALISTS}/")}
    if _FIRST_EVENT in nested:
        _pull(directory / _FINALISTS, ObjectStore(f"{store.url}/{_FINALISTS}"), nested)


def follow(directory: Path) -> None:
    """Bring a mirror's ledger up to its store; one failing read when there is nothing new, none for any other path."""
    store = store_of(directory)
    if store is None:
        return
    count = len(SweepFolder(directory).events())
    while True:
        name = str(NAMES.event(count))
        try:
            content = store.read(name)
        except FileNotFoundError:
            return
        _put(directory / name, content)
        count += 1


def whole_folders(store: ObjectStore, folder: str) -> set[str]:
    """The names of the folders below ``folder`` whose manifest is there: it is written last and removed first."""
    ending = f"/{MANIFEST}"
    return {name.split("/")[-2] for name in store.names(folder) if name.endswith(ending)}


def push_folder(store: ObjectStore, root: Path, relative: str) -> None:
    """Copy the folder ``root/relative`` to the store, its manifest last; whole when it returns."""
    files = [path for path in sorted((root / relative).rglob("*")) if path.is_file()]
    for path in sorted(files, key=lambda path: path.name == MANIFEST):
        store.write(str(path.relative_to(root)), _read(path))


def fetch_folder(store: ObjectStore, relative: str, root: Path) -> None:
    """Copy a folder of the store to ``root/relative``; what it should hold is for the caller to check."""
    _fetch(root, store, store.names(relative))


def fetch_pictures(directory: Path, names: Iterable[str]) -> None:
    """Have the pictures ``names`` in a mirror; of any other directory nothing. One that is not to be had is no error."""
    store = store_of(directory)
    if store is not None:
        with suppress(StorageError, FileNotFoundError):
            _fetch(directory, store, list(names))


def remove_folder_there(store: ObjectStore, relative: str) -> None:
    """Delete a folder of the store, its manifest first."""
    names = store.names(relative)
    store.remove([name for name in names if name.endswith(f"/{MANIFEST}")])
    store.remove([name for name in names if not name.endswith(f"/{MANIFEST}")])


class Workplace:
    """The place where a worker writes a sweep's files: the sweep's directory, or scratch whose content goes to the store.

    In a directory nothing here does anything: what is written is where it belongs.
    """

    def __init__(self, sweep_dir: str, url: str | None) -> None:
        """``url``: the sweep's in the store, None where ``sweep_dir`` is the place itself."""
        self.store = None if url is None else ObjectStore(url)
        self.directory = Path(sweep_dir) if url is None else _empty_scratch()

    def fetch(self, relative: str) -> None:
        """Have the folder ``relative`` here."""
        if self.store is not None:
            with _on_this_host():
                fetch_folder(self.store, relative, self.directory)

    def keep(self, folder: str | None, files: Collection[str] = ()) -> None:
        """Make what was written to ``folder``, and ``files``, last; durable when it returns."""
        if self.store is not None:
            with _on_this_host():
                if folder is not None:
                    push_folder(self.store, self.directory, folder)
                for name in files:
                    self.store.write(name, _read(self.directory / name))

    def forget(self, parent: str, but: Collection[str]) -> None:
        """Delete the folders in ``parent`` that are not named in ``but``."""
        if self.store is not None:
            depth = parent.count("/") + 1
            with _on_this_host():
                self.store.remove([name for name in self.store.names(parent) if name.split("/")[depth] not in but])


def _empty_scratch() -> Path:
    """This process's folder for what is on its way to the store; those of dead processes are removed."""
    scratch = cache_root() / "scratch"
    scratch.mkdir(parents=True, exist_ok=True)
    for folder in scratch.iterdir():
        pid = folder.name.rpartition("-")[2]
        mine = folder.name.startswith(f"{socket.gethostname()}-") and pid.isdigit()
        if mine and (int(pid) == os.getpid() or not alive(int(pid))):
            shutil.rmtree(folder, ignore_errors=True)
    own = scratch / f"{socket.gethostname()}-{os.getpid()}"
    own.mkdir(exist_ok=True)
    return own


@contextmanager
def _on_this_host() -> Iterator[None]:
    try:
        yield
    except StorageError as error:
        raise StorageError(f"{error} (on {socket.gethostname()})") from error


def _fetch(root: Path, store: ObjectStore, names: list[str]) -> None:
    for start in range(0, len(names), _AT_ONCE):
        some = names[start : start + _AT_ONCE]
        for name, content in zip(some, store.read_all(some), strict=True):
            _put(root / name, content)


def _read(path: Path) -> bytes:
    from vae.durable import WEIGHTS, read_file  # noqa: PLC0415 - the command line needs addresses, and not that, for --help

    return read_file(path, WEIGHTS)


def _put(path: Path, content: bytes) -> None:
    """Write a file of a mirror, whole or not at all. The store has it, so it is not synced."""
    from vae.durable import replace  # noqa: PLC0415 - as above

    path.parent.mkdir(parents=True, exist_ok=True)
    replace(path, content, sync=False)

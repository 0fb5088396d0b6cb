"""Folders that are written whole or not at all, and that show when a byte of them changes.

A folder's ``manifest.json`` holds the sha256 of every other file that belongs to it; what was added later
(looks, notes) is not in it and is left alone. The temporary names begin with a dot and end in ``.tmp``.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import stat
from pathlib import Path
from typing import Any

from research.errors import CorruptFile
from research.store.layout import MANIFEST
from research.store.scratch import alive
from vae.durable import LARGE_TEXT, WEIGHTS, read_file, replace, sync_directory, write_file
from vae.system.manifest import DamagedFolder, check_manifest, is_plain, manifest_file

_PID = re.compile(r"\.(\d+)(?:-[0-9a-z]+)?\.tmp$")  # in a temporary name, as vae.durable makes it
_SEAL = "sha256"  # in a file that vouches for itself


def write_folder(target: Path, files: dict[str, bytes | Path]) -> None:
    """Make ``target`` a folder of ``files`` (name to content, or to the file to copy) and their manifest.

    Durable when it returns; killed at any moment, ``target`` is what it was, or is complete. An equal and
    undamaged ``target`` stays as it is; any other is replaced.
    """
    contents = {
        name: source if isinstance(source, bytes) else read_file(source, WEIGHTS) for name, source in files.items()
    }
    manifest = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    if any(not is_plain(name) for name in manifest):
        raise ValueError(f"file names of {target} must be plain: {sorted(manifest)}")
    with contextlib.suppress(CorruptFile):
        if verify_folder(target) == manifest:
            return
    temporary = _temporary(target, "new")
    if not target.parent.exists():
        target.parent.mkdir(parents=True)
        sync_directory(target.parent.parent)
    temporary.mkdir()
    try:
        for name, content in contents.items():
            write_file(temporary / name, content)
        write_file(temporary / MANIFEST, manifest_file(manifest))
        sync_directory(temporary)
        if target.exists():
            remove_folder(target)
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    sync_directory(target.parent)


def verify_folder(path: Path) -> dict[str, str]:
    """The manifest of ``path`` (file name to sha256), after every file in it was read and compared.

    Raises ``CorruptFile`` naming the file that is missing, torn or altered.
    """
    try:
        return check_manifest(path)
    except DamagedFolder as error:
        raise CorruptFile(str(error)) from error


def read_folder(path: Path) -> dict[str, bytes]:
    """Read the files of ``path`` that its manifest names, and the manifest; symbolic links are not followed.

    For what leaves this machine: exactly the bytes that were compared with the manifest, and nothing else that lies
    in the folder.

    Raises:
        CorruptFile: naming the file that is missing, torn, altered or a link.

    """
    if path.is_symlink():
        raise CorruptFile(f"{path} is a symbolic link, which no model folder is: put the folder itself there")
    content = _read_plain(path / MANIFEST)
    try:
        manifest = json.loads(content)
        sound = all(is_plain(name) and isinstance(digest, str) for name, digest in manifest.items())
    except (ValueError, AttributeError, RecursionError):
        sound = False
    if not sound:
        raise CorruptFile(f"{path / MANIFEST} is damaged: restore {path} from a copy")
    files = {name: _read_plain(path / name) for name in manifest}
    for name, digest in manifest.items():
        if hashlib.sha256(files[name]).hexdigest() != digest:
            raise CorruptFile(f"{path / name} is damaged (its sha256 is not the manifest's): restore it from a copy")
    return {**files, MANIFEST: content}


def _read_plain(path: Path) -> bytes:
    """Read a regular file, and nothing that a link, a pipe or a device would lead to."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        why = "it is a symbolic link" if error.errno == errno.ELOOP else error.strerror
        raise CorruptFile(f"{path} can't be read ({why}): restore it from a copy") from error
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise CorruptFile(f"{path} can't be read (it is no regular file): restore it from a copy")
        return file.read()


def inside(sweep_dir: Path, relative: str) -> Path:
    """The file or folder that a ledger names, which may come from anybody.

    Raises:
        CorruptFile: it is not inside ``sweep_dir``, or no name of a file at all.

    """
    try:
        path = (sweep_dir / relative).resolve()
    except (ValueError, OSError, RuntimeError):  # a NUL in it, a name that is too long, links in a circle
        path = Path()
    if not path.is_relative_to(sweep_dir.resolve()):
        raise CorruptFile(f"the ledger names {relative[:200]!r}, which is not inside {sweep_dir}")
    return path


def remove_folder(path: Path) -> None:
    """Remove ``path`` so that no reader sees a part of it: first its name, then its content."""
    hidden = _temporary(path, "old")
    path.rename(hidden)
    shutil.rmtree(hidden)


def clear_leftovers(parent: Path) -> None:
    """Remove what a killed writer left half done in ``parent``; only for the one who may write there."""
    for leftover in parent.glob(".*.tmp"):
        shutil.rmtree(leftover, ignore_errors=True)


def clear_leftover_files(directory: Path) -> None:
    """Remove the temporary files that killed processes left in ``directory``; only for the holder of the sweep's lock.

    The files of other living processes of this machine stay: a reader may be bringing the sweep's mirror up to date.
    """
    for leftover in directory.glob(".*.tmp"):
        pid = _PID.search(leftover.name)
        other = pid is not None and int(pid[1]) != os.getpid() and alive(int(pid[1]))
        if not other and leftover.is_file():
            leftover.unlink(missing_ok=True)


def sealed(values: dict[str, Any]) -> bytes:
    """``values`` as JSON with their own sha256, for a file that nothing else vouches for."""
    return (json.dumps({**values, _SEAL: _digest(values)}, indent=1, allow_nan=False) + "\n").encode()


def write_sealed(path: Path, values: dict[str, Any]) -> None:
    """Write :func:`sealed` values to ``path``, whole or not at all."""
    replace(path, sealed(values))


def read_sealed(path: Path) -> dict[str, Any]:
    """Return the content that :func:`write_sealed` wrote.

    Raises:
        CorruptFile: naming ``path``, which is missing, torn or altered.

    """
    try:
        values = json.loads(read_file(path, LARGE_TEXT))
        sound = isinstance(values, dict) and values.pop(_SEAL, None) == _digest(values)
    except OSError as error:
        raise CorruptFile(f"{path} can't be read ({error.strerror}): restore it from a copy") from None
    except (ValueError, RecursionError):
        sound = False
    if not sound:
        raise CorruptFile(f"{path} is damaged (its sha256 does not match): restore it from a copy")
    return dict(values)


def _digest(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True, allow_nan=False).encode()).hexdigest()


def _temporary(path: Path, suffix: str) -> Path:
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{suffix}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    return temporary

"""A folder's ``manifest.json``: the SHA-256 of every other file that belongs to the folder. Imports no torch."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from vae.durable import hash_file, read_file

if TYPE_CHECKING:
    from pathlib import Path

MANIFEST = "manifest.json"


class DamagedFolder(ValueError):
    """A file of a folder is missing, torn or altered. The message names the file."""


def has_manifest(folder: Path) -> bool:
    """Return True if something has the manifest's name, be it a link that leads nowhere."""
    return os.path.lexists(folder / MANIFEST)


def check_manifest(folder: Path) -> dict[str, str]:
    """Return the manifest of ``folder``, file name to SHA-256, after every file in it was read and compared.

    Raises:
        DamagedFolder: a file is missing, torn or altered.

    """
    try:
        raw = read_file(folder / MANIFEST)
    except OSError as error:
        message = f"{folder / MANIFEST} can't be read ({error.strerror}): {folder} is not a whole folder"
        raise DamagedFolder(message) from error
    try:
        manifest = json.loads(raw)
        sound = all(is_plain(name) and isinstance(digest, str) for name, digest in manifest.items())
        sound = sound and raw == manifest_file(manifest)
    except (ValueError, AttributeError, RecursionError):
        sound = False
    if not sound:
        raise DamagedFolder(f"{folder / MANIFEST} is damaged: restore {folder} from a copy")
    for name, digest in manifest.items():
        try:
            found = hash_file(folder / name)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise DamagedFolder(f"{folder / name} can't be read ({reason}): restore it from a copy") from error
        if found != digest:
            raise DamagedFolder(
                f"{folder / name} is damaged (its sha256 is not the manifest's): restore it from a copy"
            )
    return dict(manifest)


def manifest_file(manifest: dict[str, str]) -> bytes:
    """Return the content of the manifest's file; equal manifests have equal content."""
    return (json.dumps(manifest, indent=2, sort_keys=True) + "\n").encode()


def is_plain(name: str) -> bool:
    """Return True if ``name`` can be a file of a folder with a manifest: no path, and not the manifest itself."""
    return name not in {"", ".", "..", MANIFEST} and "/" not in name and "\0" not in name

"""Folders with a manifest whose files a test has changed on purpose."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from vae.system.manifest import MANIFEST, manifest_file

if TYPE_CHECKING:
    from pathlib import Path


def reseal(folder: Path) -> None:
    """Write the manifest of ``folder`` anew, so that its files are what it says."""
    names = json.loads((folder / MANIFEST).read_bytes())
    (folder / MANIFEST).write_bytes(
        manifest_file({name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names})
    )

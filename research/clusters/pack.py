"""The code as a folder that can be sent to a cluster: what runs, what it was made of, and nothing else."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

from research import provenance
from research.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_ALONGSIDE = ("pyproject.toml", "constraints.txt")  # for whoever wants to know what it ran with


def pack(into: Path, others: Iterable[Path] = ()) -> None:
    """Copy the packages into the empty folder ``into``, and ``others`` beside them.

    The commit, the differences from it and the fingerprint go along in ``packed.json``, because there is no git
    where the folder is unpacked: :func:`research.provenance.code` reads them there.

    Raises:
        UserError: one of ``others`` doesn't exist, or would take the place of something else.

    """
    for name in provenance.PACKAGES:
        shutil.copytree(provenance.ROOT / name, into / name, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
    for name in _ALONGSIDE:
        if (provenance.ROOT / name).is_file():
            shutil.copyfile(provenance.ROOT / name, into / name)
    packed = {"code": provenance.code(), "diff": provenance.diff_text()}
    (into / provenance.PACKED).write_text(json.dumps(packed, indent=1) + "\n", encoding="utf-8")
    for source in others:
        place = into / source.resolve().name
        # A module of the same name would be imported in a package's stead.
        if place.exists() or place.stem in provenance.PACKAGES:
            raise UserError(f"{str(source)!r} can't be sent along: there is a {place.name!r} already; rename it")
        if source.is_dir():
            shutil.copytree(source, place, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
        elif source.is_file():
            shutil.copyfile(source, place)
        else:
            raise UserError(f"{str(source)!r} can't be sent along: there is no such file or folder")

"""Pack the code into a folder for a cluster: the packages, their origin, and nothing else."""

from __future__ import annotations

import json
import os
import shutil
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from research import provenance
from research.errors import UserError
from research.redaction import secret_in
from research.secret_rules import is_secret_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_ALONGSIDE = ("pyproject.toml", "constraints.txt")  # they document the dependencies
# Histories and caches are left out of a folder that the user names.
_LEFT_OUT = {".git", ".hg", ".svn", "__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".ipynb_checkpoints"}
_VENV = "pyvenv.cfg"  # a folder with this file is a virtual environment
_LOOKED_AT = 2**22  # the bytes of each file that are searched for secrets


def pack(into: Path, others: Iterable[Path] = ()) -> None:
    """Copy the files of the packages, and ``others``, into the empty folder ``into``.

    ``packed.json`` holds the commit, the differences from it and the fingerprint, because the cluster has no git
    repository. :func:`research.provenance.code` reads it there.

    Raises:
        UserError: one of ``others`` does not exist, has the name of another file, holds a secret, or is a link that
            leads out of it; or a source file of the packages is not tracked by git.

    """
    files = provenance.package_files()
    _refuse_untracked(files)
    for path in (*files, *map(Path, _ALONGSIDE)):
        source = provenance.ROOT / path
        if path in files or source.is_file():
            _copy(source, into / path, provenance.ROOT)
    packed = {"code": provenance.code(), "diff": provenance.diff_text()}
    (into / provenance.PACKED).write_text(json.dumps(packed, indent=1) + "\n", encoding="utf-8")
    for source in others:
        place = into / Path(os.path.abspath(source)).name  # noqa: PTH100 - a link keeps its own name
        # A module of the same name would be imported instead of the package.
        if place.exists() or place.stem in provenance.PACKAGES:
            raise UserError(f"{str(source)!r} can't be sent along: there is a {place.name!r} already; rename it")
        if not source.exists():
            raise UserError(f"{str(source)!r} can't be sent along: there is no such file or folder")
        root = source.resolve()  # a link that the user names is followed; links inside must not lead out of it
        if is_secret_file(Path(source.name)) or is_secret_file(Path(root.parent.name, root.name)):
            raise UserError(_refusal(source, "it holds secrets, by its name"))
        if not root.is_dir():
            _copy(root, place, root.parent)
            continue
        for path in _files(root, root):
            _copy(path, place / path.relative_to(root), root)


def _refuse_untracked(files: list[Path]) -> None:
    """Refuse source files that git does not track. They would be missing on the cluster, so the code would differ."""
    known = set(files)
    for name in provenance.PACKAGES:
        for path in sorted((provenance.ROOT / name).rglob("*.py")):
            if (relative := path.relative_to(provenance.ROOT)) not in known:
                raise UserError(
                    f"{relative} would not be sent, because git does not track it (a wheel's RECORD does not list it), and the "
                    f"code there would be another: git add {relative}, or move it away"
                )


def _files(folder: Path, root: Path) -> Iterator[Path]:
    """Yield the files in ``folder`` without histories, caches and virtual environments. Links inside are followed."""
    for path in sorted(folder.iterdir()):
        if path.name in _LEFT_OUT or (path / _VENV).exists():
            continue
        _refuse_outside(path, root)
        if path.is_dir():
            if path.is_symlink() and folder.resolve().is_relative_to(path.resolve()):
                raise UserError(f"{str(path)!r} can't be sent along: the link leads to a folder around it; remove it")
            yield from _files(path, root)
        else:
            yield path


def _copy(source: Path, target: Path, root: Path) -> None:
    """Copy one regular file that holds no secret.

    Raises:
        UserError: the file may not be sent; the message has the reason.

    """
    try:
        _refuse_outside(source, root)
        relative = source.relative_to(root) if source.is_relative_to(root) else Path(source.name)
        if is_secret_file(relative):
            raise UserError(_refusal(source, "it holds secrets, by its name"))
        if not stat.S_ISREG(source.stat().st_mode):
            raise UserError(f"{str(source)!r} can't be sent along: it is no regular file; move it away")
        with source.open("rb") as file:
            content = file.read(_LOOKED_AT)
        if b"\0" not in content and (kind := secret_in(content.decode("utf-8", "replace"))) is not None:
            raise UserError(_refusal(source, f"it holds {kind}"))
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    except OSError as error:
        raise UserError(f"{str(source)!r} can't be sent along: {error.strerror}") from None


def _refuse_outside(path: Path, root: Path) -> None:
    """Refuse a link, at ``path`` or above it, that leads out of the tree ``root``."""
    if not path.resolve().is_relative_to(root.resolve()):
        raise UserError(
            f"{str(path)!r} can't be sent along: it is a link out of {str(root)!r}; put the file itself there, or name it "
            "with --with"
        )


def _refusal(path: Path, why: str) -> str:
    return (
        f"{str(path)!r} is not sent to the cluster, because {why}: move it out of what is sent, and give the cluster its "
        "secrets by its own means"
    )

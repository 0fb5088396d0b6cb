"""The recognition of folders for training, validation and test."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

from vae.data.dataset import DataError
from vae.data.labels import listed

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

Part = Literal["train", "validation", "test"]

_WORDS: dict[str, Part] = {
    **dict.fromkeys(("train", "training", "trn"), "train"),
    **dict.fromkeys(
        ("val", "valid", "validate", "validation", "dev", "devel", "development", "eval", "evaluation"), "validation"
    ),
    **dict.fromkeys(("test", "testing", "tst", "holdout"), "test"),
}
_ENDINGS = re.compile(r"(set|data|images?|imgs?|split|folder)$")
_TOKENS = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+")


def part_called(name: str) -> Part | None:
    """Return the part that a folder's name stands for, in any spelling (``Train``, ``test_set``, ``val2017``), or None."""
    words = [word.lower() for word in _TOKENS.findall(name)]
    whole = "".join(words)
    parts = {
        _WORDS[word]
        for word in (*words, whole, *(_ENDINGS.sub("", word) for word in (*words, whole)))
        if word in _WORDS
    }
    return parts.pop() if len(parts) == 1 else None


def divided(root: Path, images: Iterable[Path]) -> tuple[dict[Part, Path], tuple[str, ...]]:
    """Return the folders of ``root`` that are parts, and a line for each thing that is not used.

    ``images`` are all image files below ``root``. The folders are parts if one is for training and another for validation or
    test, or if the only folder is for training. Otherwise they are labels and no parts are returned, because a label can
    have the name "train", too.

    Raises:
        DataError: Two folders are for the same part, training is missing, or parts lie below the labels.

    """
    below = [file.relative_to(root).parts for file in images]
    counts: dict[str, int] = {}
    for parts in below:
        top = parts[0] if len(parts) > 1 else ""
        counts[top] = counts.get(top, 0) + 1
    folders = sorted(name for name in counts if name)
    for exact in ("train", "test"):  # an empty folder is refused later, with its name
        if exact not in counts and (root / exact).is_dir():
            folders.append(exact)
    called: dict[Part, list[str]] = {}
    for name in folders:
        if (part := part_called(name)) is not None:
            called.setdefault(part, []).append(name)
    recognised = [name for names in called.values() for name in names]
    only_parts = len(recognised) == len(folders) and "" not in counts
    if "train" not in called:
        if len(called) > 1 or (called and only_parts):
            raise DataError(
                f"{root} has {listed(sorted(recognised))} and no folder for training: rename one to 'train', or give its path"
            )
        _refuse_parts_below(root, below)
        return {}, ()
    if len(called) == 1 and not (only_parts and len(folders) == 1):
        _refuse_parts_below(root, below)
        return {}, ()  # "train" is a label among others
    for part, names in sorted(called.items(), reverse=True):  # training first
        if len(names) > 1:
            raise DataError(
                f"{root} has several folders for {part}, {listed(names)}: put them together, or give one's path"
            )
    chosen = {part: root / names[0] for part, names in called.items()}
    unused = [
        f"{count:,} images {f'in {name!r}' if name else 'outside of any folder'} are not used: {root.name} is divided into "
        f"{listed(sorted(recognised))}"
        for name, count in sorted(counts.items())
        if name not in recognised
    ]
    for part, folder in sorted(chosen.items(), reverse=True):
        _refuse_parts_below(folder, [parts[1:] for parts in below if parts[0] == folder.name], inside=part)
    return chosen, tuple(unused)


def _refuse_parts_below(root: Path, below: Iterable[tuple[str, ...]], *, inside: Part | None = None) -> None:
    """Refuse parts below a label, such as ``root/cat/train`` and ``root/cat/val``, because labels would mix the parts."""
    children: dict[str, set[str]] = {}
    for parts in below:
        if len(parts) > 2:  # noqa: PLR2004 - a folder in a folder
            children.setdefault(parts[0], set()).add(parts[1])
        elif len(parts) > 1:
            children.setdefault(parts[0], set())
    if inside is not None and len(children) == 1 and part_called(only := next(iter(children))) == inside:
        raise DataError(f"{root} has nothing but a folder {only!r}: move its content up by one folder")
    for name, inner in sorted(children.items()):
        called = {part: child for child in sorted(inner) if (part := part_called(child)) is not None}
        if "train" in called and len(called) > 1:
            raise DataError(
                f"{root / name} has folders {listed(sorted(called.values()))}: the parts must lie above the labels; give the "
                f"path of {name!r} alone, or move the folders"
            )

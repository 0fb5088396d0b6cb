"""Any folder of images. Its sub-folders are labels, as in torchvision's ImageFolder."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from typing import TYPE_CHECKING, Literal

import torch

from vae.config import FractionBelowOne, PositiveInt, part
from vae.data.dataset import Binarisation, Content, DataError, DataFields, locate
from vae.data.folder_parts import divided
from vae.data.image_files import SUFFIXES, Background, Flat, decode, image_size
from vae.data.labels import check_classes, natural, unless_numbers

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from PIL.Image import Image
    from torch import Tensor

    from vae.data.folder_parts import Part

LEVELS = 255
_HASH_RANGE = 1 << 32


@part
class ImageFolder(DataFields):
    """All images with 8 bits below ``path``, in the order of their names.

    ``path`` is relative to the data directory, or to the working directory. With ``size`` each image is resized so that its
    shorter side fits, and cut to size × size around its centre. Without it all images must have one size. ``colour`` gives
    three channels, else there is one. ``background`` is the shade behind transparent pixels.

    Sub-folders are labels. They are numbered in natural order (2 before 10) and keep their names. Without sub-folders there
    are no labels.

    If ``path`` has a folder for training and one for validation or test, in any spelling (``train``, ``Training``, ``val``,
    ``test_set``), these are the parts. Without a folder for test, ``test_fraction`` of the training files are the test part.
    They are chosen by a hash of their names, so that new files do not move others between the parts. The images in a folder
    for validation are the validation part, unless ``validation`` is given.

    ``reading`` 1 is the rule of version 0.1.0: labels in the order of their text, only ``train`` and ``test`` as parts,
    transparency dropped, the first of several frames. Records of that version mean 1.
    """

    kind: Literal["image_folder"] = "image_folder"
    path: str
    size: PositiveInt | None = None
    colour: bool = True
    background: Background = "white"
    test_fraction: FractionBelowOne = 0.1
    validation_fraction: FractionBelowOne = 0.1
    binarisation: Binarisation = "none"
    reading: Literal[1, 2] = 2

    def load(self, directory: Path, *, train: bool) -> Content:
        """Return the training or the test part.

        Raises:
            DataError: There is no such folder, or an image is invalid.

        """
        root = locate(directory, self.path, "folder")
        parts, notes = self._parts(root)
        # Sizes and labels are always those of all parts.
        everything = [(file, file.relative_to(top), name) for name, top in parts for file in _images_below(top)]
        names, labels = self._labelled([(file, below) for file, below, _ in everything])
        height, width = (self.size, self.size) if self.size else _common_size([file for file, _, _ in everything])
        has_test = any(name == "test" for _, _, name in everything)
        tests = [
            name == "test" or (not has_test and name == "train" and self._is_test(below))
            for _, below, name in everything
        ]
        chosen = [index for index, test in enumerate(tests) if test != train]
        if not chosen:
            raise DataError(
                f"{root} has no {'training' if train else 'test'} images; change data.test_fraction or the folder"
            )
        files = [everything[index][0] for index in chosen]
        flat = None if self.reading == 1 else Flat(self.background)
        images, mapped = decode(
            files,
            (3 if self.colour else 1, height, width),
            self._prepare(flat),
            settings=f"{self.size} {self.colour}" + (f" on {self.background}" if flat else ""),
            directory=directory if directory.is_dir() else root,
            flat=flat,
        )
        selecting = [index for index, i in enumerate(chosen) if everything[i][2] == "validation"]
        return Content(
            images,
            labels[chosen],
            LEVELS,
            len(names),
            validation=int(len(files) * self.validation_fraction),
            official=torch.tensor(selecting) if selecting else None,
            mapped=mapped,
            label_names=unless_numbers(names),
            notes=notes,
        )

    def _parts(self, root: Path) -> tuple[list[tuple[Part, Path]], tuple[str, ...]]:
        """Return each part with its folder, and a line for each thing that is not used."""
        if self.reading == 1:
            folders = (root / "train").is_dir() and (root / "test").is_dir()
            return ([("train", root / "train"), ("test", root / "test")] if folders else [("train", root)]), ()
        found, notes = divided(root, _images_below(root))
        if found and "test" not in found:
            share = f"{100 * self.test_fraction:g} % of the training images are the test part"
            notes = (*notes, f"{root.name} has no folder for test: {share}")
        order: tuple[Part, ...] = ("train", "validation", "test")
        parts = [(name, found[name]) for name in order if name in found] or [("train", root)]
        return parts, (*notes, *_other_files(root))

    def _labelled(self, files: list[tuple[Path, Path]]) -> tuple[list[str], Tensor]:
        """Return the names of the labels, and the labels int64 [N], of (file, name below its part).

        There are no names if no file lies in a sub-folder.
        """
        found = {below.parts[0] for _, below in files if len(below.parts) > 1}
        if not found:
            return [], torch.zeros(len(files), dtype=torch.int64)
        if flat := next((file for file, below in files if len(below.parts) == 1), None):
            raise DataError(f"{flat} has no label, and other images lie in folders, their labels: put it in one")
        if self.reading > 1:
            check_classes(len(found), len(files), f"the folders of {self.path!r}: the label")
        names = sorted(found) if self.reading == 1 else sorted(found, key=natural)
        place = {name: index for index, name in enumerate(names)}
        return names, torch.tensor([place[below.parts[0]] for _, below in files])

    def _is_test(self, name: Path) -> bool:
        drawn = int.from_bytes(hashlib.sha256(os.fsencode(name.as_posix())).digest()[:4], "big")
        return drawn < self.test_fraction * _HASH_RANGE

    def _prepare(self, flat: Flat | None) -> Callable[[Image], Image]:
        def prepare(image: Image) -> Image:
            from PIL import ImageOps  # noqa: PLC0415 - image files alone need it

            seen = image if flat is None else flat(image)
            upright = ImageOps.exif_transpose(seen).convert("RGB" if self.colour else "L")
            return ImageOps.fit(upright, (self.size, self.size)) if self.size else upright

        return prepare


def _images_below(root: Path) -> list[Path]:
    named = [path for path in root.rglob("*") if path.suffix.lower() in SUFFIXES and not _hidden(path, root)]
    found = sorted(path for path in named if path.is_file())
    if not found:
        raise DataError(f"no images in {root}: looked for {', '.join(SUFFIXES)}")
    return found


def _other_files(root: Path) -> tuple[str, ...]:
    """Return a line about the files whose names are not those of images. Hidden files are ignored."""
    endings = Counter(
        path.suffix.lower() or "without an ending"
        for path in root.rglob("*")
        if path.suffix.lower() not in SUFFIXES and not _hidden(path, root) and path.is_file()
    )
    if not endings:
        return ()
    shown = ", ".join(sorted(endings)[:5])
    return (f"{endings.total():,} files of {root.name} are not used, as they are no images by their names ({shown})",)


def _hidden(path: Path, root: Path) -> bool:
    return any(part_of.startswith(".") for part_of in path.relative_to(root).parts)


def _common_size(files: list[Path]) -> tuple[int, int]:
    first = image_size(files[0])
    for file in files[1:]:
        if (size := image_size(file)) != first:
            raise DataError(
                f"{file} is {size[0]}×{size[1]}, but {files[0].name} is {first[0]}×{first[1]}: give data.size to resize all"
            )
    return first

"""Any folder of images; folders in it are labels, as torchvision's ImageFolder has it."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Literal

import torch

from vae.config import FractionBelowOne, PositiveInt, part
from vae.data.dataset import Binarisation, Content, DataError, DataFields, locate
from vae.data.image_files import SUFFIXES, decode, image_size

if TYPE_CHECKING:
    from pathlib import Path

    from PIL.Image import Image
    from torch import Tensor

LEVELS = 255
_HASH_RANGE = 1 << 32


@part
class ImageFolder(DataFields):
    """Images below ``path`` (from the data directory, or from where the program runs), 8 bits, in order of their names.

    ``size``: each is resized so that its shorter side fits, and cut to size × size around its middle; None: all must
    be of one size. ``colour``: three channels, else one. Sub-folders are labels; without any there are none.

    If ``path`` has folders ``train`` and ``test``, those are the parts. Else ``test_fraction`` of the files are the
    test part, chosen by a hash of their names: adding files moves none from one part to the other.
    """

    kind: Literal["image_folder"] = "image_folder"
    path: str
    size: PositiveInt | None = None
    colour: bool = True
    test_fraction: FractionBelowOne = 0.1
    validation_fraction: FractionBelowOne = 0.1
    binarisation: Binarisation = "none"

    def load(self, directory: Path, *, train: bool) -> Content:
        """The training or the test part.

        Raises:
            DataError: one line; there is no such folder, or an image is not what it should be.

        """
        root = locate(directory, self.path, "folder")
        divided = (root / "train").is_dir() and (root / "test").is_dir()
        parts = [root / "train", root / "test"] if divided else [root]
        # Sizes and labels are those of both parts, whichever is asked for.
        everything = [(file, file.relative_to(part)) for part in parts for file in _images_below(part)]
        classes, labels = _labelled(everything)
        height, width = (self.size, self.size) if self.size else _common_size([file for file, _ in everything])
        tests = [file.is_relative_to(root / "test") if divided else self._is_test(name) for file, name in everything]
        chosen = [index for index, test in enumerate(tests) if test != train]
        if not chosen:
            raise DataError(
                f"{root} has no {'training' if train else 'test'} images; change data.test_fraction or the folder"
            )
        files = [everything[index][0] for index in chosen]
        images, mapped = decode(
            files,
            (3 if self.colour else 1, height, width),
            self._prepare,
            settings=f"{self.size} {self.colour}",
            directory=directory if directory.is_dir() else root,
        )
        held_out = int(len(files) * self.validation_fraction)
        return Content(images, labels[chosen], LEVELS, len(classes), validation=held_out, mapped=mapped)

    def _is_test(self, name: Path) -> bool:
        drawn = int.from_bytes(hashlib.sha256(os.fsencode(name.as_posix())).digest()[:4], "big")
        return drawn < self.test_fraction * _HASH_RANGE

    def _prepare(self, image: Image) -> Image:
        from PIL import ImageOps  # noqa: PLC0415 - image files alone need it

        upright = ImageOps.exif_transpose(image).convert("RGB" if self.colour else "L")
        return ImageOps.fit(upright, (self.size, self.size)) if self.size else upright


def _images_below(root: Path) -> list[Path]:
    named = [path for path in root.rglob("*") if path.suffix.lower() in SUFFIXES and not _hidden(path, root)]
    found = sorted(path for path in named if path.is_file())
    if not found:
        raise DataError(f"no images in {root}: looked for {', '.join(SUFFIXES)}")
    return found


def _labelled(files: list[tuple[Path, Path]]) -> tuple[list[str], Tensor]:
    """The labels' names, none where all files lie flat, and int64 [N] by (file, name below its part)."""
    classes = sorted({name.parts[0] for _, name in files if len(name.parts) > 1})
    if not classes:
        return [], torch.zeros(len(files), dtype=torch.int64)
    if flat := next((file for file, name in files if len(name.parts) == 1), None):
        raise DataError(f"{flat} has no label, and other images lie in folders, their labels: put it in one")
    place = {name: index for index, name in enumerate(classes)}
    return classes, torch.tensor([place[name.parts[0]] for _, name in files])


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

"""CelebA, in torchvision's layout."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch

from vae.config import PositiveInt, nearest, part
from vae.data.dataset import Binarisation, Content, DataError, DataFields
from vae.data.image_files import decode
from vae.durable import LARGE_TEXT, read_text

if TYPE_CHECKING:
    from PIL.Image import Image

LEVELS = 255
_PARTS = {"0": "train", "1": "validation", "2": "test"}


@part
class CelebA(DataFields):
    """202,599 aligned faces, 178×218 (Liu et al. 2015): 162,770 train, 19,867 validation, 19,962 test, as published.

    The files are ``celeba/img_align_celeba`` and ``celeba/list_eval_partition.txt``. Images are cut to ``crop`` × ``crop``
    around the centre (148 is usual) and averaged down to ``size``. ``attribute`` is one of ``list_attr_celeba.txt``, as a
    label 0 or 1. With a ``validation`` count, the validation part is drawn from the 182,637 faces that are not for test,
    instead of the published one.
    """

    kind: Literal["celeba"] = "celeba"
    size: PositiveInt = 64
    crop: PositiveInt = 148
    attribute: str | None = None
    binarisation: Binarisation = "none"

    def load(self, directory: Path, *, train: bool) -> Content:
        """Return the faces for training and validation, or those for test.

        Raises:
            DataError: A file is missing or invalid.

        """
        root = directory / "celeba"
        parts = _read_table(root / "list_eval_partition.txt", directory)
        wrong = next((name for name, values in parts.items() if len(values) != 1 or values[0] not in _PARTS), None)
        if wrong is not None:
            raise DataError(
                f"{root / 'list_eval_partition.txt'}: the part of {wrong} must be 0, 1 or 2, got {' '.join(parts[wrong])!r}"
            )
        names = [name for name, (value, *_) in parts.items() if (_PARTS[value] != "test") == train]
        if not names:
            raise DataError(
                f"{root / 'list_eval_partition.txt'} names no {'training' if train else 'test'} image: replace it"
            )
        if strange := next((name for name in names if Path(name).name != name), None):
            raise DataError(f"{root / 'list_eval_partition.txt'}: {strange!r} is no name of an image: replace the file")
        files = [root / "img_align_celeba" / name for name in names]
        if missing := next((file for file in files if not file.is_file()), None):
            raise DataError(
                f"{missing} is missing, and list_eval_partition.txt names it: unpack img_align_celeba.zip there"
            )
        images, mapped = decode(
            files,
            (3, self.size, self.size),
            self._prepare,
            settings=f"celeba {self.size} {self.crop}",
            directory=directory,
        )
        labels, classes = self._labels(root / "list_attr_celeba.txt", directory, names)
        held_out = [i for i, name in enumerate(names) if parts[name][0] == "1"]
        official = torch.tensor(held_out, dtype=torch.int64) if train else None
        return Content(images, labels, LEVELS, classes, official=official, mapped=mapped)

    def _labels(self, path: Path, directory: Path, names: list[str]) -> tuple[torch.Tensor, int]:
        if self.attribute is None:
            return torch.zeros(len(names), dtype=torch.int64), 0
        table = _read_table(path, directory, header=2)
        attributes = read_text(path, LARGE_TEXT).splitlines()[1].split()
        if self.attribute not in attributes:
            raise DataError(
                f"data.attribute {self.attribute!r} is none of CelebA's: {nearest(self.attribute, attributes)}"
            )
        column = attributes.index(self.attribute)
        try:
            return torch.tensor([int(table[name][column]) > 0 for name in names]).long(), 2
        except (KeyError, IndexError, ValueError) as error:
            raise DataError(f"{path} is not CelebA's attribute table: {type(error).__name__} {error}") from None

    def _prepare(self, image: Image) -> Image:
        from PIL import Image as Images  # noqa: PLC0415 - image files alone need it

        if min(image.size) < self.crop:
            raise ValueError(f"it is {image.width}×{image.height}, and data.crop is {self.crop}")
        image = image.convert("RGB")
        left, top = (image.width - self.crop) // 2, (image.height - self.crop) // 2
        box = (left, top, left + self.crop, top + self.crop)
        return image.crop(box).resize((self.size, self.size), Images.Resampling.BOX)


def _read_table(path: Path, directory: Path, header: int = 0) -> dict[str, list[str]]:
    """Return the rows of a CelebA text file, by file name."""
    try:
        lines = read_text(path, LARGE_TEXT).splitlines()[header:]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"no celeba in the data directory {directory} ({path}: {getattr(error, 'strerror', error)}): put "
            "img_align_celeba/ and list_eval_partition.txt of Liu et al. 2015 there, or pass --data-dir"
        ) from None
    rows = {parts[0]: parts[1:] for line in lines if (parts := line.split())}
    if not rows:
        raise DataError(f"{path} is empty: replace it")
    return rows

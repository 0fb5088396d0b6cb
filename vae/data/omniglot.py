"""Omniglot, in torchvision's layout."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch

from vae.config import PositiveInt, part
from vae.data.dataset import Binarisation, Content, DataError, DataFields
from vae.data.image_files import decode

if TYPE_CHECKING:
    from pathlib import Path

    from PIL.Image import Image

LEVELS = 255
_FOLDERS = {True: "images_background", False: "images_evaluation"}


@part
class Omniglot(DataFields):
    """Handwritten characters of 50 alphabets (Lake et al. 2015): 19,280 train (964 characters), 13,180 test (659 others).

    The files are below ``omniglot-py/images_background`` and ``images_evaluation``. The 105×105 drawings are averaged down
    to ``size`` × ``size``; ink is 255. Labels are the characters in the order of their folders. The test part has other
    characters. A tenth of the training part is for validation.
    """

    kind: Literal["omniglot"] = "omniglot"
    size: PositiveInt = 28
    binarisation: Binarisation = "dynamic"

    def load(self, directory: Path, *, train: bool) -> Content:
        """Return the background characters for training, or the evaluation characters for test.

        Raises:
            DataError: The folder is missing, or a drawing can't be read.

        """
        root = directory / "omniglot-py" / _FOLDERS[train]
        files = sorted(root.glob("*/*/*.png"))
        if not files:
            raise DataError(
                f"no omniglot in the data directory {directory} (expected {root}/ALPHABET/CHARACTER/*.png): unpack "
                f"{_FOLDERS[train]}.zip of Lake et al. 2015 there, or pass --data-dir"
            )
        images, mapped = decode(
            files, (1, self.size, self.size), self._prepare, settings=f"omniglot {self.size}", directory=directory
        )
        characters = {folder: index for index, folder in enumerate(sorted({file.parent for file in files}))}
        labels = torch.tensor([characters[file.parent] for file in files])
        return Content(images, labels, LEVELS, len(characters), validation=len(files) // 10, mapped=mapped)

    def _prepare(self, image: Image) -> Image:
        from PIL import Image as Images  # noqa: PLC0415 - image files alone need it
        from PIL import ImageOps  # noqa: PLC0415

        return ImageOps.invert(image.convert("L")).resize((self.size, self.size), Images.Resampling.BOX)

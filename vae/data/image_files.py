"""Image files decoded once into one array, kept beside the data, and memory-mapped when larger than memory allows."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from vae.data.dataset import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from PIL.Image import Image

MEMORY_LIMIT = 2 << 30  # bytes; a larger array stays on disk
WORTH_KEEPING = 2_000  # files: fewer are decoded again each time
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")


def decode(
    files: Sequence[Path],
    shape: tuple[int, int, int],
    prepare: Callable[[Image], Image],
    *,
    settings: str,
    directory: Path,
) -> tuple[torch.Tensor, bool]:
    """uint8 [N, C, H, W] of ``files``, each as ``prepare`` makes it, and whether it is memory-mapped.

    ``settings`` names what ``prepare`` does: with names, sizes and times of the files it is the kept array's key.

    Raises:
        DataError: naming the first file that can't be read as an image.

    """
    size = len(files) * int(np.prod(shape))
    mapped = size > MEMORY_LIMIT
    if not mapped and len(files) < WORTH_KEEPING:
        values = np.empty((len(files), *shape), np.uint8)
        _fill(values, files, prepare)
        return torch.from_numpy(values), False
    kept = _place(directory) / f"{_key(files, shape, settings)}.npy"
    if not kept.is_file():
        handle, name = tempfile.mkstemp(dir=kept.parent, suffix=".tmp")
        os.close(handle)
        try:
            array = np.lib.format.open_memmap(name, "w+", np.uint8, (len(files), *shape))
            _fill(array, files, prepare)
            array.flush()
            os.replace(name, kept)  # noqa: PTH105 - whole or not at all
        finally:
            Path(name).unlink(missing_ok=True)
    values = np.load(kept, mmap_mode="c" if mapped else None, allow_pickle=False)
    return torch.from_numpy(values), mapped


def image_size(file: Path) -> tuple[int, int]:
    """Height and width, from the file's header.

    Raises:
        DataError: it is no image.

    """
    from PIL import Image  # noqa: PLC0415 - image files alone need it

    try:
        with Image.open(file) as image:
            return image.height, image.width
    except (OSError, ValueError, SyntaxError) as error:
        raise _unreadable(file, error) from None


def _fill(values: np.ndarray, files: Sequence[Path], prepare: Callable[[Image], Image]) -> None:  # type: ignore[type-arg] # uint8
    from PIL import Image  # noqa: PLC0415 - image files alone need it

    for index, file in enumerate(files):
        try:
            with Image.open(file) as image:
                array = np.asarray(prepare(image))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise _unreadable(file, error) from None
        values[index] = array[None] if array.ndim == 2 else array.transpose(2, 0, 1)  # noqa: PLR2004 - grey has no channels


def _unreadable(file: Path, error: Exception) -> DataError:
    return DataError(f"{file} can't be read as an image ({' '.join(str(error).split())}): replace it, or move it away")


def _place(directory: Path) -> Path:
    """A folder for kept arrays: in the data directory, or the user's cache where that can't be written."""
    for folder in (
        directory / ".decoded",
        Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "vae-research",
    ):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(folder, os.W_OK):
            return folder
    raise DataError(f"neither {directory} nor the cache directory can be written; set XDG_CACHE_HOME")


def _key(files: Sequence[Path], shape: tuple[int, int, int], settings: str) -> str:
    digest = hashlib.sha256(f"{shape}{settings}".encode())
    for file in files:
        status = file.stat()
        digest.update(f"\0{file}\0{status.st_size}\0{status.st_mtime_ns}".encode())
    return digest.hexdigest()[:32]

"""Decoding of image files into one array, which is cached with the data and memory-mapped if it is large."""

from __future__ import annotations

import hashlib
import os
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray

from vae.data.dataset import DataError
from vae.durable import check_file, replacing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from PIL.Image import Image

MEMORY_LIMIT = 2 << 30  # bytes; a larger array stays on disk
WORTH_KEEPING = 2_000  # files from which on the array is cached; fewer files are decoded each time
_BYTE = 255
_ORIENTATION, _LYING = 0x0112, {5, 6, 7, 8}  # Exif's tag, and its values for pictures that are turned by 90 degrees
# The errors of Pillow for damaged files.
_UNREADABLE = (OSError, ValueError, SyntaxError, EOFError, TypeError, IndexError, struct.error, zlib.error, MemoryError)
_Pixels = NDArray[np.uint8]
_SUBFILE_TYPE, _REDUCED = 254, 1  # TIFF's tag, and its bit for a smaller copy of another frame
Background = Literal["white", "black", "grey"]
_SHADES: dict[Background, int] = {"white": 255, "grey": 128, "black": 0}
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")


def decode(
    files: Sequence[Path],
    shape: tuple[int, int, int],
    prepare: Callable[[Image], Image],
    *,
    settings: str,
    directory: Path,
    flat: Flat | None = None,
) -> tuple[torch.Tensor, bool]:
    """Return the images of ``files`` after ``prepare``, uint8 [N, C, H, W], and True if they are memory-mapped.

    ``settings`` describes what ``prepare`` does. With the names, sizes and times of the files it is the key of the cache.
    ``flat`` is the background that ``prepare`` uses. Drawings that are invisible on it are refused.

    Raises:
        DataError: A file can't be read as an image. The message names the first one.

    """
    size = len(files) * int(np.prod(shape))
    mapped = size > MEMORY_LIMIT
    if not mapped and len(files) < WORTH_KEEPING:
        values = np.empty((len(files), *shape), np.uint8)
        fill(values, files, prepare)
        if flat is not None:
            flat.refuse_hidden(files[0].parent)
        return torch.from_numpy(values), False
    kept = _place(directory) / f"{_key(files, shape, settings)}.npy"
    found = _kept(kept, (len(files), *shape), mapped=mapped)
    if found is None:
        try:
            _keep(kept, files, shape, prepare, flat)
        except OSError as error:
            raise DataError(
                f"decoded images can't be kept in {kept.parent} ({error.strerror or error}): {size:,} bytes are needed"
            ) from None
        found = _kept(kept, (len(files), *shape), mapped=mapped)
        assert found is not None, "it was just written"
    return torch.from_numpy(found), mapped


def _kept(path: Path, shape: tuple[int, ...], *, mapped: bool) -> _Pixels | None:
    """Return the cached pixels of an earlier run; None if there are none, or if they are damaged."""
    try:
        # Mode "c" is copy-on-write, so writes of this process never reach the file.
        check_file(path)
        values: _Pixels = np.load(path, mmap_mode="c" if mapped else None, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return values if values.shape == shape and values.dtype == np.uint8 else None


def _keep(
    path: Path,
    files: Sequence[Path],
    shape: tuple[int, int, int],
    prepare: Callable[[Image], Image],
    flat: Flat | None,
) -> None:
    """Write the cached array completely or not at all, because other processes may look for it."""
    with replacing(path) as temporary:
        array = np.lib.format.open_memmap(str(temporary), "w+", np.uint8, (len(files), *shape))
        fill(array, files, prepare)
        if flat is not None:
            flat.refuse_hidden(files[0].parent)
        array.flush()
        temporary.chmod(0o644)  # readable for all users of a shared data directory


def image_size(file: Path) -> tuple[int, int]:
    """Return height and width of the upright picture, from the file's header.

    Raises:
        DataError: The file is not an image.

    """
    from PIL import Image  # noqa: PLC0415 - image files alone need it

    try:
        with Image.open(file) as image:
            lying = image.getexif().get(_ORIENTATION) in _LYING
            return (image.width, image.height) if lying else (image.height, image.width)
    except (*_UNREADABLE, Image.DecompressionBombError) as error:
        raise _unreadable(file, error) from None


def grey_pixels(file: Path) -> _Pixels:
    """Return a picture's shades of grey, [H, W]. Transparent pixels are black.

    Raises:
        DataError: The file is not an image with one frame and 8 bits.

    """
    from PIL import Image  # noqa: PLC0415 - image files alone need it

    try:
        with Image.open(file) as image:
            _refuse_deeper(image)
            return np.asarray(Flat("black")(image).convert("L"))
    except (*_UNREADABLE, Image.DecompressionBombError) as error:
        raise _unreadable(file, error) from None


def fill(values: _Pixels, files: Sequence[Path], prepare: Callable[[Image], Image]) -> None:
    """Decode ``files`` into ``values`` [N, C, H, W], each image after ``prepare``.

    Raises:
        DataError: A file can't be read as an image.

    """
    from PIL import Image  # noqa: PLC0415 - image files alone need it

    for index, file in enumerate(files):
        try:
            with Image.open(file) as image:
                _refuse_deeper(image)
                array = np.asarray(prepare(image))
        except (*_UNREADABLE, Image.DecompressionBombError) as error:
            raise _unreadable(file, error) from None
        values[index] = array[None] if array.ndim == 2 else array.transpose(2, 0, 1)  # noqa: PLR2004 - grey has no channels


class Flat:
    """Puts images with transparency on a background of one shade, and counts those that are invisible on it.

    Images without transparency, or with an alpha channel that is opaque everywhere, are not changed. Files with several
    frames are refused.
    """

    def __init__(self, background: Background) -> None:
        """Start with no images counted."""
        self.background: Background = background
        self.transparent = 0
        self.hidden = 0

    def __call__(self, image: Image) -> Image:
        """Return ``image``, or a copy without transparency.

        Raises:
            ValueError: The file has several frames.

        """
        from PIL import Image as Images  # noqa: PLC0415 - image files alone need it

        _refuse_frames(image)
        if not image.has_transparency_data:
            return image
        with_alpha = image.convert("RGBA")
        low, high = _extrema(with_alpha.getchannel("A"))
        if low == _BYTE:
            return image
        shade = _SHADES[self.background]
        ground = Images.new("RGBA", image.size, (shade, shade, shade, _BYTE))
        seen = Images.alpha_composite(ground, with_alpha).convert("RGB")
        self.transparent += 1
        self.hidden += low != high and all(least == most for least, most in map(_extrema, seen.split()))
        if _ORIENTATION in (exif := image.getexif()):  # the orientation of the camera stays with the pixels
            seen.getexif()[_ORIENTATION] = exif[_ORIENTATION]
        return seen

    def refuse_hidden(self, folder: Path) -> None:
        """Refuse a background on which all images with transparency are invisible.

        Raises:
            DataError: They are. The message names ``folder`` and the other backgrounds.

        """
        if self.hidden and self.hidden == self.transparent:
            raise DataError(
                f"{folder}: on a {self.background} background nothing is seen of the images with transparency; set "
                "data.background to another of 'white', 'grey' and 'black'"
            )


def _extrema(channel: Image) -> tuple[int, int]:
    """Return the smallest and the largest value of an image of one channel."""
    low, high = cast("tuple[int, int]", channel.getextrema())
    return low, high


def _refuse_deeper(image: Image) -> None:
    if image.mode.startswith(("I", "F")):
        # Pillow would silently clip its values at 255.
        raise ValueError(f"its pixels are {image.mode!r}, not 8 bits; save it with 8 bits")


def _refuse_frames(image: Image) -> None:
    """Refuse animations and stacks. A camera's preview and a TIFF's smaller copies do not count as frames."""
    frames = getattr(image, "n_frames", 1)
    if frames == 1 or image.format == "MPO":
        return
    if image.format == "TIFF":
        wholes = 0
        for frame in range(frames):
            image.seek(frame)
            tags = getattr(image, "tag_v2", {})
            wholes += not int(tags.get(_SUBFILE_TYPE, 0)) & _REDUCED
        image.seek(0)
        frames = wholes
    if frames > 1:
        raise ValueError(f"it holds {frames} frames, and an example is one; save each in a file of its own")


def _unreadable(file: Path, error: Exception) -> DataError:
    return DataError(f"{file} can't be read as an image ({' '.join(str(error).split())}): replace it, or move it away")


def _place(directory: Path) -> Path:
    """Return the folder for cached arrays: in the data directory, or in the user's cache if that can't be written."""
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
        digest.update(os.fsencode(file) + f"\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
    return digest.hexdigest()[:32]

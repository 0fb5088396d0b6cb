"""Image files decoded once into one array, kept beside the data, and memory-mapped when larger than memory allows."""

from __future__ import annotations

import hashlib
import os
import struct
import tempfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import torch

from vae.data.dataset import DataError
from vae.durable import check_file

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from PIL.Image import Image

MEMORY_LIMIT = 2 << 30  # bytes; a larger array stays on disk
WORTH_KEEPING = 2_000  # files: fewer are decoded again each time
_BYTE = 255
_ORIENTATION, _LYING = 0x0112, {5, 6, 7, 8}  # Exif's tag, and its values of pictures that are turned by 90 degrees
# What Pillow raises for files that are damaged.
_UNREADABLE = (OSError, ValueError, SyntaxError, EOFError, TypeError, IndexError, struct.error, zlib.error, MemoryError)
_Pixels = np.ndarray[Any, np.dtype[np.uint8]]
_SUBFILE_TYPE, _REDUCED = 254, 1  # TIFF's tag, and its bit of a smaller copy of another frame
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
    """uint8 [N, C, H, W] of ``files``, each as ``prepare`` makes it, and whether it is memory-mapped.

    ``settings`` names what ``prepare`` does: with names, sizes and times of the files it is the kept array's key.
    ``flat`` is the background that ``prepare`` uses. Drawings that it hides are refused.

    Raises:
        DataError: naming the first file that can't be read as an image.

    """
    size = len(files) * int(np.prod(shape))
    mapped = size > MEMORY_LIMIT
    if not mapped and len(files) < WORTH_KEEPING:
        values = np.empty((len(files), *shape), np.uint8)
        _fill(values, files, prepare)
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
        # "c": what torch would write, if it did, stays in this process.
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
    """Whole or not at all: other processes may be looking for it."""
    handle, name = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    os.close(handle)
    try:
        array = np.lib.format.open_memmap(name, "w+", np.uint8, (len(files), *shape))
        _fill(array, files, prepare)
        if flat is not None:
            flat.refuse_hidden(files[0].parent)
        array.flush()
        Path(name).chmod(0o644)  # of a shared data directory everybody may profit
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)


def image_size(file: Path) -> tuple[int, int]:
    """Height and width of the upright picture, from the file's header.

    Raises:
        DataError: it is no image.

    """
    from PIL import Image  # noqa: PLC0415 - image files alone need it

    try:
        with Image.open(file) as image:
            lying = image.getexif().get(_ORIENTATION) in _LYING
            return (image.width, image.height) if lying else (image.height, image.width)
    except (*_UNREADABLE, Image.DecompressionBombError) as error:
        raise _unreadable(file, error) from None


def grey_pixels(file: Path) -> _Pixels:
    """A picture's shades of grey, [H, W]; transparent pixels are black.

    Raises:
        DataError: it is no image of one frame and 8 bits.

    """
    from PIL import Image  # noqa: PLC0415 - image files alone need it

    try:
        with Image.open(file) as image:
            _refuse_deeper(image)
            return np.asarray(Flat("black")(image).convert("L"))
    except (*_UNREADABLE, Image.DecompressionBombError) as error:
        raise _unreadable(file, error) from None


def _fill(values: _Pixels, files: Sequence[Path], prepare: Callable[[Image], Image]) -> None:
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
    """Puts images with transparency on a background of one shade, and counts those of which nothing is seen there.

    Images without transparency, or with an alpha channel that is opaque everywhere, are left as they are. Files with
    several frames are refused.
    """

    def __init__(self, background: Background) -> None:
        """Nothing is counted yet."""
        self.background: Background = background
        self.transparent = 0
        self.hidden = 0

    def __call__(self, image: Image) -> Image:
        """Return ``image``, or a copy without transparency.

        Raises:
            ValueError: it holds several frames.

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
        if _ORIENTATION in (exif := image.getexif()):  # how the camera was held goes with the pixels
            seen.getexif()[_ORIENTATION] = exif[_ORIENTATION]
        return seen

    def refuse_hidden(self, folder: Path) -> None:
        """Refuse a background on which nothing is seen of any image with transparency.

        Raises:
            DataError: naming ``folder`` and the other backgrounds.

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
        # Pillow would cut its values off at 255 and say nothing.
        raise ValueError(f"its pixels are {image.mode!r}, not 8 bits; save it with 8 bits")


def _refuse_frames(image: Image) -> None:
    """Refuse animations and stacks. A camera's preview, and a TIFF's smaller copies, are no frames of their own."""
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
        digest.update(os.fsencode(file) + f"\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
    return digest.hexdigest()[:32]

"""IDX files, the format of MNIST and similar sets. Their length is checked against their header.

They are read here and not by torchvision. It trusts the header, checks sizes only by assertions, does not name the file
in its errors, and can't read compressed files in a read-only directory.

The format is two zero bytes, a type code (8 is unsigned byte), the number of dimensions, each dimension as a big-endian
32-bit count, and the values (LeCun, Cortes & Burges, "The MNIST database").
"""

from __future__ import annotations

import gzip
import struct
import zlib
from math import prod
from typing import IO, TYPE_CHECKING

import numpy as np
import torch

from vae.data.dataset import DataError

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

_UNSIGNED_BYTE = 8
_DEFLATE_LIMIT = 1032  # no deflate stream expands further than 1032 to 1 (zlib's technical notes)
_CHUNK = 1 << 20


def locate(path: Path) -> Path | None:
    """Return ``path``, or ``path``.gz if only that exists, or None."""
    compressed = path.with_name(path.name + ".gz")
    return next((p for p in (path, compressed) if p.exists() or p.is_symlink()), None)


def read_idx(path: Path, dimensions: int) -> Tensor:
    """Return the values of an IDX file of unsigned bytes, raw or .gz, as a uint8 tensor of ``dimensions`` dimensions.

    Memory is bounded by the real size of the file, even if the header claims more.

    Raises:
        DataError: The file is unreadable or empty, has another type or number of dimensions, or its length does not match
            its header.

    """
    if not path.is_file():
        message = f"{path} is not a regular file: put the data file itself, or a working link to it, there"
        raise DataError(message)
    try:
        if path.suffix == ".gz":
            with gzip.open(path, "rb") as file:
                return _read_compressed(file, path, dimensions)
        with path.open("rb") as file:
            return _read_raw(file, path, dimensions)
    except EOFError:
        raise _corrupt(path, "its compressed data end too early") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise _corrupt(path, f"it is no valid gzip file ({error})") from None
    except OSError as error:
        message = f"{path} can't be read: {error.strerror or error}"
        raise DataError(message) from None
    except MemoryError:
        message = f"{path} doesn't fit in memory ({path.stat().st_size / 1e9:.1f} GB on disk)"
        raise DataError(message) from None


def _read_raw(file: IO[bytes], path: Path, dimensions: int) -> Tensor:
    shape = _read_header(file, path, dimensions)
    start, size = file.tell(), path.stat().st_size
    _refuse_length(path, shape, size - start)
    values = np.fromfile(file, dtype=np.uint8, count=prod(shape))
    _refuse_length(path, shape, len(values))
    return torch.from_numpy(values).view(shape)


def _read_compressed(file: gzip.GzipFile, path: Path, dimensions: int) -> Tensor:
    shape = _read_header(file, path, dimensions)
    claimed = prod(shape)
    if claimed > _DEFLATE_LIMIT * path.stat().st_size:
        raise _corrupt(path, f"its header claims {_product(shape)} values, more than the file can hold")
    values = bytearray()
    while chunk := file.read(min(_CHUNK, claimed + 1 - len(values))):
        values += chunk
    if len(values) > claimed:
        raise _corrupt(path, f"its header claims {_product(shape)} values, but it holds more")
    _refuse_length(path, shape, len(values))
    return torch.frombuffer(values, dtype=torch.uint8).view(shape)


def _read_header(file: IO[bytes] | gzip.GzipFile, path: Path, dimensions: int) -> tuple[int, ...]:
    """Return the counts in the header, each at least 1."""
    length = 4 + 4 * dimensions
    header = file.read(length)
    magic = bytes((0, 0, _UNSIGNED_BYTE, dimensions))
    if header[:4] != magic:
        found = header[:4].hex() or "nothing"
        rule = f"it must start with {magic.hex()} (IDX, unsigned bytes, {dimensions}-D)"
        raise _corrupt(path, f"{rule}, found {found}")
    if len(header) < length:
        raise _corrupt(path, f"it ends inside its header ({len(header)} of {length} bytes)")
    shape = struct.unpack(f">{dimensions}I", header[4:])
    if 0 in shape:
        raise _corrupt(path, f"its header says {_product(shape)} values: at least one is needed")
    return shape


def _refuse_length(path: Path, shape: tuple[int, ...], found: int) -> None:
    if found != prod(shape):
        raise _corrupt(path, f"its header claims {_product(shape)} values, but it holds {found}")


def _product(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))


def _corrupt(path: Path, what: str) -> DataError:
    return DataError(f"{path} is corrupt: {what}; replace the file")

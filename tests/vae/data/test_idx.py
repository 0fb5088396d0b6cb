"""IDX files that are what they say, and those that lie."""

from __future__ import annotations

import gzip
import struct
import tracemalloc
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from vae.data import DataError
from vae.data.idx import locate, read_idx

if TYPE_CHECKING:
    from pathlib import Path

MAGIC = bytes((0, 0, 8, 3))
BODY = bytes(range(24))
GOOD = MAGIC + struct.pack(">3I", 2, 3, 4) + BODY
both_layouts = pytest.mark.parametrize("compressed", [False, True], ids=["raw", "gz"])


def put(directory: Path, content: bytes, *, compressed: bool) -> Path:
    """A file of ``content``, compressed or not."""
    path = directory / ("images.gz" if compressed else "images")
    path.write_bytes(gzip.compress(content) if compressed else content)
    return path


@both_layouts
def test_values(tmp_path: Path, *, compressed: bool) -> None:
    """Values come back in order, in the header's shape, and can be written to."""
    values = read_idx(put(tmp_path, GOOD, compressed=compressed), 3)
    assert torch.equal(values, torch.arange(24, dtype=torch.uint8).view(2, 3, 4))
    values[0] = 1


@both_layouts
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "found nothing"),
        (MAGIC[:3], "must start with 00000803"),
        (bytes((0, 0, 9, 3)) + GOOD[4:], "found 00000903"),
        (bytes((0, 0, 8, 1)) + GOOD[4:], "found 00000801"),
        (b"<html>not found</html>", "found 3c68746d"),
        (GOOD[:9], "ends inside its header"),
        (MAGIC + struct.pack(">3I", 0, 3, 4), "at least one is needed"),
        (MAGIC + struct.pack(">3I", 2, 0, 4), "at least one is needed"),
        (MAGIC + struct.pack(">3I", 2**31, 28, 28) + BODY, "2147483648×28×28"),
        (MAGIC + struct.pack(">3I", *[2**32 - 1] * 3) + BODY, "4294967295×4294967295×4294967295"),
        (GOOD[:-1], "claims 2×3×4 values, but it holds 23"),
        (GOOD[:16], "claims 2×3×4 values, but it holds 0"),
        (GOOD + b"\0", "claims 2×3×4 values, but it holds (25|more)"),
    ],
)
def test_lies_are_refused(tmp_path: Path, content: bytes, reason: str, *, compressed: bool) -> None:
    """A file that isn't exactly what its header says is refused in one line with its name, in no memory."""
    path = put(tmp_path, content, compressed=compressed)
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=reason) as refusal:
            read_idx(path, 3)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert str(path) in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert peak < 2**22


def test_every_truncation_of_gzip_is_refused(tmp_path: Path) -> None:
    """A download that broke off is refused wherever it broke, also when only the checksum is lost."""
    noise = np.random.default_rng(0).integers(0, 256, 600, dtype=np.uint8).tobytes()
    whole = gzip.compress(MAGIC + struct.pack(">3I", 6, 10, 10) + noise)
    path = tmp_path / "images.gz"
    path.write_bytes(whole)
    assert len(read_idx(path, 3)) == 6
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"images\.gz is corrupt"):
            read_idx(path, 3)


def test_damaged_gzip_is_refused(tmp_path: Path) -> None:
    """A flipped byte inside is caught by gzip's checksum; what is no gzip file is said to be none."""
    noise = np.random.default_rng(0).integers(0, 256, 600, dtype=np.uint8).tobytes()
    whole = bytearray(gzip.compress(MAGIC + struct.pack(">3I", 6, 10, 10) + noise))
    whole[300] ^= 255
    for content in (bytes(whole), b"<html>", GOOD):
        path = tmp_path / "images.gz"
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"images\.gz is corrupt"):
            read_idx(path, 3)


def test_gzip_bomb(tmp_path: Path) -> None:
    """A small file that expands without end is read no further than its header's claim."""
    path = put(tmp_path, GOOD + bytes(50_000_000), compressed=True)
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="holds more"):
            read_idx(path, 3)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2**22


def test_not_a_file(tmp_path: Path) -> None:
    """A directory, or a link to nothing, is refused by name."""
    (tmp_path / "directory").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("directory", "link"):
        with pytest.raises(DataError, match=f"{name} is not a regular file"):
            read_idx(tmp_path / name, 3)


def test_raw_before_compressed(tmp_path: Path) -> None:
    """Where both are there the raw file is read; where neither is, nothing is found."""
    path = tmp_path / "images"
    assert locate(path) is None
    (tmp_path / "images.gz").write_bytes(b"")
    assert locate(path) == tmp_path / "images.gz"
    path.write_bytes(b"")
    assert locate(path) == path

"""Data that are not what they should be: refused with file and reason, in bounded memory."""

from __future__ import annotations

import gzip
import io
import struct
import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.support.places import ROOT
from vae.data import Arrays, DataError, ImageFolder, Mnist, load_training
from vae.data.support import check_support
from vae.likelihoods import ContinuousBernoulli
from vae.train_config import TrainConfig

if TYPE_CHECKING:
    from pathlib import Path

DATA = "20 malformed data"
IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


def idx(*counts: int, values: bytes = b"", magic: int | None = None) -> bytes:
    """An IDX file whose header says ``counts``."""
    magic = 0x800 + len(counts) if magic is None else magic
    return struct.pack(f">{1 + len(counts)}I", magic, *counts) + values


WHOLE = idx(12, 4, 4, values=bytes(192))


@pytest.fixture
def mnist(tmp_path):
    """A data directory with a small MNIST; a function that replaces one of its files and loads it."""
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part in ("train", "t10k"):
        (raw / f"{part}-images-idx3-ubyte").write_bytes(WHOLE)
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(idx(12, values=bytes(12)))

    def load(name: str, content: bytes) -> None:
        (raw / name.removesuffix(".gz")).unlink()
        (raw / name).write_bytes(content)
        load_training(Mnist(), tmp_path)

    return load


@pytest.mark.fault(DATA)
@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        (IMAGES, idx(12, 4, 4, magic=0x801, values=bytes(192)), "must start with 00000803"),
        (IMAGES, b"\x80\x04\x95" + bytes(200), "must start with 00000803"),
        (IMAGES, b"", "found nothing"),
        (IMAGES, idx(12, 4, 4, values=bytes(192))[:10], "ends inside its header"),
        (IMAGES, idx(2**31, 28, 28, values=bytes(100)), "claims 2147483648×28×28 values, but it holds 100"),
        (IMAGES, idx(12, 4, 4, values=bytes(191)), "but it holds 191"),
        (IMAGES, idx(12, 4, 4, values=bytes(193)), "but it holds 193"),
        (IMAGES, idx(0, 4, 4), "at least one is needed"),
        (f"{IMAGES}.gz", gzip.compress(idx(2**31, 28, 28, values=bytes(100))), "more than the file can hold"),
        (f"{IMAGES}.gz", gzip.compress(WHOLE)[:-12], "its compressed data end too early"),
        (f"{IMAGES}.gz", gzip.compress(WHOLE)[:20], "its compressed data end too early"),
        (f"{IMAGES}.gz", WHOLE, "no valid gzip file"),
        (f"{IMAGES}.gz", gzip.compress(WHOLE + bytes(1 << 26)), "but it holds more"),
        (LABELS, idx(11, values=bytes(11)), "11 labels but"),
        (LABELS, idx(12, values=b"\x0a" * 12), "labels must be 0 to 9, found 10"),
    ],
)
def test_an_idx_file_that_lies_is_refused(mnist, tally, name, content, told):
    """Wrong magic, counts that are not the size, claims of billions, torn or swollen gzip: the file and why."""
    tally.happened()
    with pytest.raises(DataError, match=told) as refusal:
        mnist(name, content)
    assert name in str(refusal.value)


def bomb(count: int) -> bytes:
    """An .npz of a few megabytes that takes ``count`` bytes."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (count // 100, 100)})
    archive = io.BytesIO()
    with (
        zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file,
        file.open("x.npy", "w", force_zip64=True) as member,
    ):
        member.write(header.getvalue())
        for _ in range(count // (1 << 20)):
            member.write(bytes(1 << 20))
    return archive.getvalue()


LIMITED = """
import resource, sys
from pathlib import Path
import numpy, pyarrow.csv, pyarrow.parquet, PIL.Image, torch
from vae.data import Arrays, DataError, ImageFolder, load_training
pages = int(Path("/proc/self/statm").read_text().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (700 << 20),) * 2)
kind = ImageFolder if sys.argv[1] == "folder" else Arrays
try:
    load_training(kind(path=sys.argv[2]), Path("."))
except DataError as error:
    print(error)
print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def limited(kind: str, path: Path) -> str:
    """What a process that may take 700 MB more says of the data at ``path``."""
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, kind, str(path)],
        capture_output=True, text=True, check=False, timeout=300, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    line, peak = done.stdout.strip().rsplit("\n", 1)
    assert peak.startswith("peak")
    assert "\n" not in line
    return line


def claims(path: Path, shape: tuple[int, ...]) -> None:
    """An .npy that says it is of ``shape`` and holds eight bytes."""
    with path.open("wb") as file:
        np.lib.format.write_array_header_2_0(file, {"descr": "<f8", "fortran_order": False, "shape": shape})
        file.write(bytes(8))


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.fault(DATA)
@pytest.mark.timeout(900)
def test_bombs_are_refused_in_bounded_memory(tmp_path, tally):
    """A zip bomb, headers that claim terabytes, a picture of 10⁹ pixels, a Parquet file of 10¹⁰ rows: 700 MB are enough."""
    (tmp_path / "bomb.npz").write_bytes(bomb((2 << 30) + (1 << 20)))
    assert (tmp_path / "bomb.npz").stat().st_size < 10_000_000
    tally.happened()
    assert "bomb.npz: 'x' takes 2,1" in limited("arrays", tmp_path / "bomb.npz")
    claims(tmp_path / "claims.npy", (10**12, 10))
    tally.happened()
    assert "claims.npy" in limited("arrays", tmp_path / "claims.npy")
    with zipfile.ZipFile(tmp_path / "claims.npz", "w") as archive:
        archive.write(tmp_path / "claims.npy", "x.npy")
    tally.happened()
    assert "claims.npz" in limited("arrays", tmp_path / "claims.npz")
    folder = tmp_path / "pictures"
    folder.mkdir()
    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 0, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + b"".join(
        _chunk(kind, text) for kind, text in ((b"IHDR", header), (b"IDAT", b"x"), (b"IEND", b""))
    )
    (folder / "a.png").write_bytes(png)
    tally.happened()
    assert "a.png can't be read as an image" in limited("folder", folder)
    import pyarrow as pa
    from pyarrow import parquet

    rows = pa.table({"a": pa.array(np.zeros(300_000_000, dtype=np.int8))})
    parquet.write_table(rows, tmp_path / "rows.parquet")
    del rows
    assert (tmp_path / "rows.parquet").stat().st_size < 10_000_000
    tally.happened()
    assert "300,000,000 rows of 1 columns take" in limited("arrays", tmp_path / "rows.parquet")


def _chunk(kind: bytes, content: bytes) -> bytes:
    import zlib

    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


@pytest.mark.fault(DATA)
@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.csv", b"a,b\n1,2\n3\n", "a.csv can't be read"),
        ("a.csv", b"a,b\n1,2\n3,4,5\n", "a.csv can't be read"),
        ("a.csv", b"a,b\n1,nan\n2,3\n", "row 0, column 'b' is nan"),
        ("a.csv", b"a,b\n1,inf\n2,3\n", "row 0, column 'b' is inf"),
        ("a.csv", b"a,b\n1,1e39\n2,3\n", "must be finite float32"),
        ("a.csv", b"a,b\n1,\n2,3\n", "row 0, column 'b' is nan"),
        ("a.csv", b"a,b\n1,x\n2,3\n", "column 'b' holds string"),
        ("a.csv", b"a,b\n", "a.csv"),
        ("a.csv", b"", "a.csv can't be read"),
        ("a.csv", b"\0\0\0", "a.csv"),
        ("a.npy", b"\x93NUMPY\x01\x00\xff\xff", "a.npy can't be read"),
        ("a.npy", b"\x93NUMPY\x01\x00\x08\x00((((((((", "a.npy can't be read"),
        ("a.npy", b"", "a.npy can't be read"),
        ("a.npz", b"PK\x05\x06" + bytes(18), "a.npz has no array 'x'"),
        ("a.npz", b"PK\x03\x04", "a.npz can't be read"),
        ("a.parquet", b"PAR1PAR1", "a.parquet can't be read"),
        ("a.pkl", b"x", "must end in .npz, .npy, .parquet or .csv"),
    ],
)
def test_an_array_that_is_none_is_refused(tmp_path, tally, name, content, told):
    """Ragged, empty, not finite, no numbers, torn, of no known kind: file, place and reason."""
    (tmp_path / name).write_bytes(content)
    tally.happened()
    with pytest.raises(DataError, match=told) as refusal:
        load_training(Arrays(path=name), tmp_path)
    assert "\n" not in str(refusal.value)


@pytest.mark.fault(DATA)
@pytest.mark.parametrize(
    ("values", "told"),
    [
        (np.array([{}, 1], dtype=object), "allow_pickle"),
        (np.array(["a", "b"]), "must be numbers"),
        (np.zeros((0, 4)), "holds no values"),
        (np.zeros((4, 0)), "holds no values"),
        (np.zeros(4), "must have 2 to 4 dimensions"),
        (np.zeros((2, 2, 2, 2, 2)), "must have 2 to 4 dimensions"),
        (np.array([[1.0, np.nan]] * 4), "row 0, column 1 is nan"),
        (np.array([[1.0, np.inf]] * 4), "row 0, column 1 is inf"),
        (np.zeros((4, 2), dtype=complex), "must be numbers"),
        (np.zeros((4, 2), dtype="datetime64[s]"), "must be numbers"),
        (np.zeros(4, dtype=[("a", "f4")]), "must be numbers"),
    ],
)
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_values_that_are_no_data_are_refused(tmp_path, tally, values, told, suffix):
    """Objects, text, nothing, too many dimensions, NaN: in both of numpy's formats."""
    file = tmp_path / f"a{suffix}"
    np.save(file, values, allow_pickle=True) if suffix == ".npy" else np.savez(file, x=values)
    tally.happened()
    with pytest.raises(DataError, match=told):
        load_training(Arrays(path=file.name), tmp_path)


@pytest.mark.fault(DATA)
def test_values_outside_the_support_of_the_likelihood_are_refused(tmp_path, tally):
    """A continuous Bernoulli's pixel of 1.5, found before a step is trained."""
    np.save(tmp_path / "a.npy", np.linspace(0, 1.5, 80, dtype=np.float32).reshape(20, 4))
    config = TrainConfig(data=Arrays(path="a.npy"), likelihood=ContinuousBernoulli())
    data = load_training(config.data, tmp_path)
    tally.happened()
    with pytest.raises(DataError, match=r"outside \[0, 1\], the support of likelihood.kind 'continuous_bernoulli'"):
        check_support(config, data.train, data.levels)


@pytest.mark.fault(DATA)
def test_places_that_are_no_file_are_refused(tmp_path, tally):
    """A directory, links in a circle, a link to nothing, a pipe, where a file is expected: none is waited for."""
    import os

    (tmp_path / "a.npy").mkdir()
    (tmp_path / "b.npy").symlink_to("c.npy")
    (tmp_path / "c.npy").symlink_to("b.npy")
    (tmp_path / "d.npy").symlink_to("nowhere")
    os.mkfifo(tmp_path / "e.npy")
    for name in "abcde":
        tally.happened()
        with pytest.raises(DataError, match=f"no file '{name}.npy'"):
            load_training(Arrays(path=f"{name}.npy"), tmp_path)
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "loop").symlink_to(folder)
    (folder / "a.png").symlink_to("b.png")
    (folder / "b.png").symlink_to("a.png")
    tally.happened()
    with pytest.raises(DataError):
        load_training(ImageFolder(path="pictures"), tmp_path)


@pytest.mark.fault(DATA)
@pytest.mark.parametrize(
    "content",
    [b"", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"P6\n-1 5\n255\n", b"\xff\xd8\xff", b"<svg/>", b"BM" + b"\xff" * 60],
)
def test_an_unreadable_image_in_a_folder_is_named(tmp_path, tally, content):
    """Empty, cut off, of negative size, no image at all."""
    from PIL import Image

    for index in range(20):
        Image.new("RGB", (4, 4)).save(tmp_path / f"{index:02d}.png")
    (tmp_path / "07.png").write_bytes(content)
    tally.happened()
    with pytest.raises(DataError, match=r"07.png can't be read as an image"):
        load_training(ImageFolder(path=str(tmp_path), test_fraction=0.1), tmp_path)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.fault(DATA)
@pytest.mark.parametrize("shape", [(3, 100_004), (100_004, 3)])
def test_a_table_of_a_hundred_thousand_columns_or_rows_is_read_or_refused(tmp_path, tally, shape):
    """Wide or long, it is what the file says; a line too long for the reader is one line of refusal."""
    rows, columns = shape
    line = ",".join("1" for _ in range(columns))
    text = ",".join(f"c{i}" for i in range(columns)) + "\n" + f"{line}\n" * rows
    (tmp_path / "a.csv").write_text(text)
    tally.happened()
    data = load_training(Arrays(path="a.csv", test_fraction=0.0 if rows < 9 else 0.2), tmp_path)
    assert data.shape == (1, 1, columns)

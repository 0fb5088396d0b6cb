"""Files in torchvision's layout, small and generated, and a network that isn't there."""

from __future__ import annotations

import gzip
import os
import socket
import struct
from pathlib import Path

import numpy as np
import pytest

from vae.data import clear_cache


class DataDirectory:
    """A data directory, and what the tests put there."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        *,
        folder: str = "MNIST",
        prefix: str = "train",
        compressed: bool = False,
    ) -> None:
        """One part of an IDX set."""
        for name, values in (("images-idx3", images), ("labels-idx1", labels)):
            content = self.idx(values)
            suffix = ".gz" if compressed else ""
            file = self.path / folder / "raw" / f"{prefix}-{name}-ubyte{suffix}"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(gzip.compress(content) if compressed else content)

    def write_noise(self, count: int, height: int = 28, width: int = 28, **where: str | bool) -> np.ndarray:
        """A part of ``count`` noise images, [count, height, width], labelled 0, 1, ..., 9, 0, ..."""
        images = np.random.default_rng(count).integers(0, 256, (count, height, width), dtype=np.uint8)
        self.write(images, np.arange(count) % 10, **where)  # type: ignore[arg-type]
        return images

    @staticmethod
    def idx(values: np.ndarray) -> bytes:
        """``values`` as the content of an IDX file of unsigned bytes."""
        header = bytes((0, 0, 8, values.ndim)) + struct.pack(f">{values.ndim}I", *values.shape)
        return header + values.astype(np.uint8).tobytes()

    def listing(self) -> list[str]:
        """Every path below the directory."""
        return sorted(str(p.relative_to(self.path)) for p in self.path.rglob("*"))


@pytest.fixture
def data(tmp_path: Path) -> DataDirectory:
    """An empty data directory."""
    path = tmp_path / "data"
    path.mkdir()
    return DataDirectory(path)


@pytest.fixture(autouse=True)
def _fresh_memory() -> None:
    """Each test reads its files anew."""
    clear_cache()


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test leaves the machine: every name but this machine's is unknown."""
    look_up = socket.getaddrinfo

    def local_only(host: str, *rest: object, **options: object) -> object:
        if host in {"127.0.0.1", "localhost"}:
            return look_up(host, *rest, **options)  # type: ignore[arg-type]
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", local_only)
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def mnist_dir() -> Path:
    """Where the real MNIST is, in torchvision's layout."""
    named = os.environ.get("RESEARCH_DATA_DIR")
    if not named or not Path(named, "MNIST", "raw").is_dir():
        pytest.skip("needs MNIST: set RESEARCH_DATA_DIR to a directory that holds MNIST/raw")
    return Path(named)

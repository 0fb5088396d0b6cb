"""Sets that aren't there: fetched whole where there is a network, refused without a trace elsewhere."""

from __future__ import annotations

import contextlib
import gc
import gzip
import hashlib
import http.server
import io
import os
import socket
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from torchvision.datasets import EMNIST, MNIST

import vae.data.download
from vae.data import (
    Cifar10,
    DataConfig,
    DataError,
    Emnist,
    FashionMnist,
    Kmnist,
    Mnist,
    Svhn,
    load_test,
    load_training,
)
from vae.data.download import DownloadError, download

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.vae.data.conftest import DataDirectory

ALL = [Mnist(), FashionMnist(), Kmnist(), Emnist(), Cifar10(), Svhn()]
all_sets = pytest.mark.parametrize("config", ALL, ids=[config.kind for config in ALL])


@all_sets
@pytest.mark.parametrize("exists", [True, False], ids=["empty directory", "no directory"])
def test_offline(tmp_path: Path, config: DataConfig, capfd: pytest.CaptureFixture[str], *, exists: bool) -> None:
    """Without a network: at once, one line with set, directory, files and remedy; nothing left or printed."""
    directory = tmp_path / "a" / "data"
    if exists:
        directory.mkdir(parents=True)
    start = time.monotonic()
    with pytest.raises(DataError) as refusal:
        load_training(config, directory)
    assert time.monotonic() - start < 30
    message = str(refusal.value)
    assert "\n" not in message
    file = "data_batch_1" if config.kind == "cifar10" else "train"
    reason = "Name or service not known"
    for word in (config.kind, str(directory), file, reason, "--data-dir", "RESEARCH_DATA_DIR"):
        assert word in message
    assert directory.exists() == exists
    assert sorted(tmp_path.rglob("*")) == ([tmp_path / "a", directory] if exists else [])
    assert capfd.readouterr() == ("", "")


def test_a_network_that_swallows_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where names and servers never answer, the wait is bounded."""
    over = threading.Event()

    def never(*_: object, **__: object) -> None:
        over.wait(60)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(vae.data.download, "_PROBE_SECONDS", 0.3)
    monkeypatch.setattr(socket, "getaddrinfo", never)
    start = time.monotonic()
    with pytest.raises(DataError, match=r"no answer from \S+ within 0\.3 seconds"):
        load_training(Mnist(), tmp_path / "data")
    assert time.monotonic() - start < 40  # it would hang for 60
    over.set()
    assert list(tmp_path.iterdir()) == []


def test_a_file_for_a_directory(tmp_path: Path) -> None:
    """A data directory that is a file is said to be one."""
    (tmp_path / "data").write_text("")
    with pytest.raises(DataError, match="data is a file: pass a directory with --data-dir"):
        load_training(Mnist(), tmp_path / "data")


class Server:
    """A web server on this machine: what it serves, by path, and what it was asked for."""

    def __init__(self) -> None:
        self.content: dict[str, bytes] = {}
        self.asked: set[str] = set()  # torchvision asks for each file twice: first where it is, then for it
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.asked.add(self.path)
                content = server.content.get(self.path)
                self.send_response(404 if content is None else 200)
                self.send_header("Content-Length", str(len(content or b"")))
                self.end_headers()
                if content is not None:
                    with contextlib.suppress(ConnectionError):  # a client may not care for the body
                        self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = False  # so that closing waits for answers under way
        self.url = f"http://127.0.0.1:{self.http.server_port}/"


@pytest.fixture
def server() -> Iterator[Server]:
    """A running server."""
    server = Server()
    thread = threading.Thread(target=server.http.serve_forever)
    thread.start()
    yield server
    server.http.shutdown()
    thread.join()
    server.http.server_close()


def serve_mnist(server: Server, data: DataDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small MNIST to be downloaded: 12 images to train on and 4 to test."""
    resources = []
    for prefix, count in (("train", 12), ("t10k", 4)):
        parts = (("images-idx3", np.ones((count, 28, 28))), ("labels-idx1", np.arange(count) % 10))
        for name, values in parts:
            file = f"{prefix}-{name}-ubyte.gz"
            server.content[f"/{file}"] = gzip.compress(data.idx(values))
            resources.append((file, hashlib.md5(server.content[f"/{file}"]).hexdigest()))
    monkeypatch.setattr(MNIST, "mirrors", [server.url])
    monkeypatch.setattr(MNIST, "resources", resources)


def test_downloaded_once(
    server: Server, data: DataDirectory, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A missing set is fetched, silently; what is kept are the four files, and they are not fetched again."""
    serve_mnist(server, data, monkeypatch)
    directory = data.path / "not" / "yet"
    assert len(load_training(Mnist(), directory).train.images) == 10
    assert len(load_test(Mnist(), directory).images) == 4
    assert len(server.asked) == 4
    server.asked.clear()
    load_training(Mnist(split_seed=1), directory)
    assert not server.asked
    assert [p.name for p in sorted(directory.rglob("*")) if p.is_file()] == [
        "t10k-images-idx3-ubyte",
        "t10k-labels-idx1-ubyte",
        "train-images-idx3-ubyte",
        "train-labels-idx1-ubyte",
    ]
    assert capfd.readouterr() == ("", "")
    assert socket.getdefaulttimeout() is None


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # torchvision never closes what answered 404
@pytest.mark.parametrize("fault", ["altered", "missing", "cut short"])
def test_a_download_that_fails_halfway(
    server: Server, data: DataDirectory, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """When the third file is not what it should be, the first two go too, and so do the directories made."""
    serve_mnist(server, data, monkeypatch)
    third = "/t10k-images-idx3-ubyte.gz"
    match fault:
        case "altered":
            server.content[third] += b"\0"
        case "missing":
            del server.content[third]
        case _:
            server.content[third] = server.content[third][:20]
    with pytest.raises(DataError, match="no mnist in the data directory") as refusal:
        load_training(Mnist(), data.path / "new" / "er")
    assert "\n" not in str(refusal.value)
    assert len(server.asked) >= 2
    assert data.listing() == []
    assert socket.getdefaulttimeout() is None
    del refusal
    gc.collect()  # while the warning is still ignored


def test_emnist_keeps_every_split(server: Server, data: DataDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    """One archive holds all of EMNIST: every split is kept, except where the user's own is."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        for split in EMNIST.splits:
            for prefix in (f"emnist-{split}-train", f"emnist-{split}-test"):
                for name, values in (("images-idx3", np.ones((3, 4, 4))), ("labels-idx1", np.ones(3))):
                    file.writestr(f"gzip/{prefix}-{name}-ubyte.gz", gzip.compress(data.idx(values)))
    server.content["/gzip.zip"] = archive.getvalue()
    monkeypatch.setattr(EMNIST, "url", f"{server.url}gzip.zip")
    monkeypatch.setattr(EMNIST, "md5", hashlib.md5(archive.getvalue()).hexdigest())
    own = data.write_noise(5, 4, 4, folder="EMNIST", prefix="emnist-digits-train", compressed=True)
    data.write_noise(2, 4, 4, folder="EMNIST", prefix="emnist-digits-test", compressed=True)
    for split in ("balanced", "byclass", "bymerge", "letters", "mnist"):
        config = Emnist(emnist_split=split)  # type: ignore[arg-type]
        assert len(load_training(config, data.path).train.images) == 3
        assert len(load_test(config, data.path).images) == 3
    assert len(load_training(Emnist(emnist_split="digits"), data.path).train.images) == len(own)
    assert server.asked == {"/gzip.zip"}
    assert not any(".download" in name or "zip" in name for name in data.listing())


def test_interrupted(tmp_path: Path, server: Server) -> None:
    """Ctrl-C during a download leaves nothing behind either."""

    def fetch(staging: Path) -> None:
        (staging / "half").write_text("a file")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download(fetch, [server.url], [], tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []


def test_all_or_nothing(tmp_path: Path, server: Server) -> None:
    """A fetch that forgets a file puts none in place."""

    def fetch(staging: Path) -> None:
        (staging / "first").write_text("")

    with pytest.raises(DownloadError, match="second"):
        download(fetch, [server.url], [Path("first"), Path("second")], tmp_path / "data")
    assert list(tmp_path.iterdir()) == []


def test_read_only_directory(data: DataDirectory) -> None:
    """Sets that are there are read from a directory that can't be written to; nothing is written to it."""
    data.write_noise(60, compressed=True)
    before = data.listing()
    for path in (data.path, *data.path.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        if os.access(data.path, os.W_OK) and os.geteuid() != 0:
            pytest.fail("the directory is still writable")
        load_training(Mnist(), data.path)
    finally:
        for path in (data.path, *data.path.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
    assert data.listing() == before


def test_slow_imports_wait_until_they_are_needed(data: DataDirectory) -> None:
    """Importing vae.data, or reading MNIST's files, takes neither torchvision nor scikit-learn."""
    data.write_noise(60)
    code = (
        "import sys; from pathlib import Path; from vae.data import Mnist, load_training\n"
        f"load_training(Mnist(), Path({str(data.path)!r}))\n"
        "sys.exit('torchvision' in sys.modules or 'sklearn' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)

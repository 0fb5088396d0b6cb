"""Files are read only where they are regular files of a plausible size, and reading never waits."""

from __future__ import annotations

import os
import socket

import pytest

from vae.durable import check_file, hash_file, open_file, read_file, read_text

READERS = (read_file, read_text, check_file, hash_file, lambda path: open_file(path).close())


@pytest.fixture(params=["pipe", "socket", "device", "directory", "link to a pipe", "link to a device"])
def no_file(request, tmp_path, monkeypatch):
    """A path that is no regular file, and the word that an error must have for it."""
    path = tmp_path / "it"
    match request.param:
        case "pipe":
            os.mkfifo(path)
        case "socket":
            monkeypatch.chdir(tmp_path)  # the address of a socket must be short
            with socket.socket(socket.AF_UNIX) as listening:
                listening.bind(path.name)
        case "device":
            return "/dev/zero", "device"
        case "directory":
            path.mkdir()
        case "link to a pipe":
            os.mkfifo(tmp_path / "pipe")
            path.symlink_to(tmp_path / "pipe")
            return path, "named pipe"
        case _:
            path.symlink_to("/dev/zero")
            return path, "device"
    return path, {"pipe": "named pipe"}.get(request.param, request.param)


@pytest.mark.parametrize("read", READERS)
@pytest.mark.timeout(20)
def test_read_of_no_regular_file_is_refused_by_its_kind(no_file, read):
    """Pipes would keep the reader waiting, and a device would fill the memory."""
    path, kind = no_file
    with pytest.raises(OSError, match=kind) as refused:
        read(path)
    assert refused.value.filename == str(path)


def test_read_through_links_gives_the_file(tmp_path):
    """Symbolic links to regular files work, in a chain and from other folders."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file").write_bytes(b"one\r\ntwo\n")
    (tmp_path / "link").symlink_to("a/file")
    (tmp_path / "again").symlink_to(tmp_path / "link")

    assert read_file(tmp_path / "again") == b"one\r\ntwo\n"
    assert read_text(tmp_path / "again") == (tmp_path / "again").read_text() == "one\ntwo\n"


@pytest.mark.parametrize("size", [1001, 1 << 40])
def test_read_beyond_the_limit_is_refused_before_anything_is_read(tmp_path, size):
    """A sparse file of a terabyte takes no memory, whoever wrote it."""
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(size)
    with pytest.raises(OSError, match=f"{size:,} bytes"):
        read_file(path, limit=1000)
    with path.open("wb") as file:
        file.truncate(1000)
    assert len(read_file(path, limit=1000)) == 1000

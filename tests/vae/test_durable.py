"""Files are read only where they are regular files of a plausible size, and reading never waits."""

from __future__ import annotations

import os
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from vae.durable import check_file, create_file, hash_file, open_file, read_file, read_text, replace, replacing

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


@pytest.mark.parametrize("sync", [True, False])
def test_replace_new_or_existing_file_has_the_content(tmp_path, sync):
    """Nothing else is left in the folder, and a symbolic link is replaced, not followed."""
    path = tmp_path / "file"
    replace(path, b"one", sync=sync)
    assert path.read_bytes() == b"one"
    replace(path, b"two", sync=sync)
    (tmp_path / "link").symlink_to(path)
    replace(tmp_path / "link", b"three", sync=sync)

    assert path.read_bytes() == b"two"
    assert not (tmp_path / "link").is_symlink()
    assert {file.name for file in tmp_path.iterdir()} == {"file", "link"}


def test_replace_where_nothing_can_be_written_names_the_file(tmp_path):
    """The error names the file that was to be written, not a temporary one."""
    with pytest.raises(FileNotFoundError) as refused:
        replace(tmp_path / "none" / "file", b"content")
    assert refused.value.filename == str(tmp_path / "none" / "file")


def test_replacing_with_an_error_in_the_body_keeps_the_file(tmp_path):
    """The half of the new file is removed."""
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fails(temporary):
        temporary.write_bytes(b"half")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), replacing(path) as temporary:
        fails(temporary)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_replace_in_many_threads_shows_whole_files_only(tmp_path):
    """Eight threads of one process write the same file, and a reader sees the whole content of one of them."""
    path, contents = tmp_path / "file", [bytes([65 + index]) * 50_000 for index in range(8)]
    replace(path, contents[0])
    with ThreadPoolExecutor(8) as pool:
        writing = [pool.submit(replace, path, content, sync=False) for content in contents * 5]
        seen = [read_file(path) for _ in range(50)]
        for write in writing:
            write.result()
    assert set(seen) <= set(contents)
    assert list(tmp_path.iterdir()) == [path]


def test_create_file_that_exists_writes_nothing(tmp_path):
    """The first content stays, and the second writer is told."""
    path = tmp_path / "file"
    assert create_file(path, b"first")
    assert not create_file(path, b"second")
    assert path.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [path]


def test_create_file_in_many_threads_succeeds_once(tmp_path):
    """Of eight threads that create one file, one is told that it did, and the file is its."""
    contents = [bytes([65 + index]) for index in range(8)]
    with ThreadPoolExecutor(8) as pool:
        created = list(pool.map(lambda content: create_file(tmp_path / "file", content), contents))
    assert sum(created) == 1
    assert (tmp_path / "file").read_bytes() == contents[created.index(True)]

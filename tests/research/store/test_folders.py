"""Leftovers of killed writers are removed, and the files of living ones stay."""

from __future__ import annotations

import os

import pytest

from research.store.folders import clear_leftover_files

NOBODY = 99_999_999  # no process has such a number


@pytest.mark.parametrize(
    ("name", "stays"),
    [
        (f".file.{NOBODY}.tmp", False),
        (f".file.{NOBODY}-1a2b3c4d.tmp", False),
        (f".file.{os.getpid()}-1a2b3c4d.tmp", False),  # of an earlier process that had our number
        (f".file.{os.getppid()}-1a2b3c4d.tmp", True),
        (".file.tmp", False),
        ("file.tmp", True),
        (f".folder.{NOBODY}-new.tmp/", True),
    ],
    ids=["dead", "dead with a token", "ours", "alive", "no process", "no temporary file", "a folder"],
)
def test_clear_leftover_files_removes_files_of_dead_processes(tmp_path, name, stays):
    """Files of living processes, folders and files without a temporary name stay."""
    path = tmp_path / name
    if name.endswith("/"):
        path.mkdir()
    else:
        path.touch()
    clear_leftover_files(tmp_path)
    assert path.exists() == stays

"""Finds and ends the processes that another process has started."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_REAP_S = 0.2  # the time that a killed child gets to disappear


def kill_children(pid: int | None = None) -> None:
    """Kill all descendants of the process ``pid`` (default: this process), but not ``pid`` itself."""
    with contextlib.suppress(psutil.Error):
        _kill(psutil.Process(pid).children(recursive=True))


def kill(pids: Iterable[int]) -> None:
    """Kill the processes ``pids``. Processes that have ended or belong to another user are skipped."""
    processes = []
    for pid in pids:
        with contextlib.suppress(psutil.Error):
            processes.append(psutil.Process(pid))
    _kill(processes)


def naming(folder: Path) -> set[int]:
    """Return the running processes whose command line names ``folder``, and their descendants.

    Ray's agents write a title over their command line; the folder is in their environment.
    """
    found, named = set[int](), os.fspath(folder)
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.status() in {psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD}:
                continue
            line = process.cmdline()
            if line and line[0].startswith("ray::"):
                line = [f"{name}={value}" for name, value in process.environ().items()]
            if any(named in word for word in line):
                found |= {process.pid, *(child.pid for child in process.children(recursive=True))}
    return found - {os.getpid()}


def _kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(
        processes, timeout=_REAP_S
    )  # collects the exit codes of our own children, so that no zombie stays

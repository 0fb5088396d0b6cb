"""``study.journal``: the study as a file, for optuna-dashboard. A driver writes it and never reads it.

Optuna's own file back end reads before each write and takes a lock whose holder may be dead: a file that was
cut, deleted, locked or written to by somebody else would stop the sweep or change what it draws.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from optuna.storages.journal import BaseJournalBackend

from vae.durable import replace

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


class MirroredJournal(BaseJournalBackend):
    """Optuna's journal in memory, and the same lines in a file in the format of its ``JournalFileBackend``.

    Lines are appended; what others append (the dashboard's notes) stays where it is. A file that is not the one
    written here, or shorter, is written whole again. ``problem`` says why that last failed, in one line.
    """

    def __init__(self, path: Path) -> None:
        """``path`` is replaced at the first write."""
        self.path = path
        self.problem: str | None = None
        self._lines: list[str] = []
        self._file: int | None = None  # the inode that was written last, None where the file has to be written whole
        self._size = 0  # bytes written into it

    def read_logs(self, log_number_from: int) -> Iterable[dict[str, Any]]:
        """Return the logs from memory."""
        return [json.loads(line) for line in self._lines[log_number_from:]]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append the logs to memory and then to the file. A failure to write the file is not raised."""
        new = [json.dumps(log, separators=(",", ":")) + "\n" for log in logs]
        self._lines += new
        try:
            if self._is_ours():
                with self.path.open("ab") as file:
                    self._size += file.write("".join(new).encode())
            else:
                self._write_whole()
        except OSError as error:
            self._file = None
            self.problem = (
                f"{self.path} can't be written ({error.strerror}): the next session writes it from the ledger"
            )
        else:
            self.problem = None

    def _is_ours(self) -> bool:
        try:
            facts = self.path.stat()
        except FileNotFoundError:
            return False
        return facts.st_ino == self._file and facts.st_size >= self._size

    def _write_whole(self) -> None:
        content = "".join(self._lines).encode()
        replace(self.path, content, sync=False)
        self._file, self._size = self.path.stat().st_ino, len(content)

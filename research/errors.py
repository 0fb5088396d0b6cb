"""What the command line says when a person, not a bug, is in the way."""

from __future__ import annotations


class UserError(Exception):
    """One line that names the value, the rule and the remedy. The CLI prints it and exits 2."""


class CorruptFile(UserError):
    """A file of ours that is torn, altered or missing: refused by name, never read around."""


class StorageError(UserError):
    """An object store that can't be reached or refuses. What is in it is whole: mended, the work goes on."""

"""What is called what in a sweep's directory. Imports nothing: the command line needs these names before all else."""

from __future__ import annotations

MANIFEST = "manifest.json"  # of a folder that is written whole: the sha256 of its files
FINALISTS = "finalists"  # the sweep of a sweep's best configurations


def trial_name(number: int) -> str:
    """What a trial's folders and files are called."""
    return f"trial-{number:04d}"

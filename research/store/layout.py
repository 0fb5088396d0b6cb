"""The names in a sweep's directory. This module imports nothing, because the command line needs the names first."""

from __future__ import annotations

from pathlib import PurePosixPath

FIRST_EVENT = "ledger/00000000.json"  # what makes a directory a sweep's
MANIFEST = "manifest.json"  # of a folder that is written whole: the sha256 of its files
RECORD = "record.json"  # in a model folder: all that is needed to train it again
LATEST_EVENT = "latest-event.json"  # how long the ledger is; see research.ledger.tail
FINALISTS = "finalists"  # the sweep of a sweep's best configurations


def trial_name(number: int) -> str:
    """Return the name of a trial's folders and files."""
    return f"trial-{number:04d}"


def epoch_folder(checkpoint: str, replicates: int) -> str:
    """The folder of all that an epoch left, from the checkpoint that its row names."""
    return checkpoint if replicates == 1 else str(PurePosixPath(checkpoint).parent)


def replicate_folder(folder: str, index: int, replicates: int) -> str:
    """Return the folder of one replicate's state inside an epoch's folder; for a single run, the epoch's folder itself."""
    return folder if replicates == 1 else f"{folder}/replicate-{index}"

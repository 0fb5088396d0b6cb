"""Room on the disks that a sweep writes to, looked at before it begins."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from research.errors import StorageError
from research.planning.footprint import checkpoint_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vae.data import TrainingData
    from vae.train_config import TrainConfig

CHECKPOINTS = 3  # of each running trial: the last, the best, and the one that is being written
SOCKET_PATH = 107  # bytes: sun_path of Linux, and its end
RAY_BYTES = 64 << 20  # Ray's logs and sockets of a short session take 10 MB; it spills and logs more in a long one


def check_free_space(
    storage: Path,
    configs: Sequence[TrainConfig],
    data: TrainingData,
    *,
    concurrent: int,
    replicates: int,
    keep: int,
) -> None:
    """Refuse a sweep whose largest models would not fit in ``storage``.

    Of the ledger and of pictures nothing is foreseen: a disk that fills up later ends the session, not the sweep.

    Raises:
        StorageError: with what is needed, what is free, and where.

    """
    largest = max(checkpoint_bytes(config, data) for config in configs)
    needed = (CHECKPOINTS * concurrent * replicates + keep) * largest
    place = next(folder for folder in (storage, *storage.absolute().parents) if folder.exists())
    free = shutil.disk_usage(place).free
    if free < needed:
        running = f"{concurrent} trials at a time, " if concurrent else ""
        raise StorageError(
            f"{storage} has {_amount(free)} free, and {_amount(needed)} may be needed ({running}{keep} models kept, "
            f"{_amount(largest)} each): free some, choose another place, or ask for less"
        )


def check_temporary() -> None:
    """Refuse to start a Ray where it has no room, or where its sockets would have too long a path.

    Raises:
        StorageError: with what is needed, what is free, and where.

    """
    temporary = Path(tempfile.gettempdir())
    pid = os.getpid()
    below = f"/rr-{pid}-12345678/r/session_2000-01-01_00-00-00_000000_{pid}/sockets/plasma_store"
    if (most := SOCKET_PATH - len(below)) < len(os.fsencode(temporary)):
        raise StorageError(
            f"{temporary} is too long a path for Ray's sockets below it (at most {most} bytes): set TMPDIR to a shorter one"
        )
    free = shutil.disk_usage(temporary).free
    if free < RAY_BYTES:
        raise StorageError(
            f"{temporary} has {_amount(free)} free, and Ray needs {_amount(RAY_BYTES)} for its logs and sockets: free some, "
            "or set TMPDIR to a directory on another disk"
        )


def _amount(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"  # noqa: PLR2004 - a gigabyte

"""The harness: sweeps on Ray Tune, searched by Optuna, kept in a ledger, shown in Weights & Biases."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from research.views.results import Sweep

__all__ = ["open_sweep"]


def open_sweep(directory: str | Path) -> Sweep:
    """Return the sweep in ``directory``, or at an address such as ``s3://bucket/sweeps/NAME``, as tables.

    Raises:
        UserError: there is no sweep.
        CorruptFile: an event is damaged or missing; the message names the file.

    """
    from research.views import results  # noqa: PLC0415 - importing research stays cheap: pandas takes a second

    return results.open_sweep(directory)

"""The messages between a driver and its workers: :class:`Assignment` goes out, :class:`Report` comes back."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import TypeAdapter

from research.ledger.settings import Metric
from vae.config import NonNegativeFloat, NonNegativeInt, PositiveInt, part
from vae.system.user_code import OwnExit

if TYPE_CHECKING:
    from collections.abc import Sequence


@part
class Assignment:
    """What the driver sends to a worker: everything that a trial needs besides code and data."""

    sweep_dir: str
    storage: str | None  # the sweep's address in an object store; None: all nodes see sweep_dir
    trial: int
    attempt: int
    config: dict[str, Any]
    replicates: PositiveInt
    metric: Metric
    objectives: list[str]  # metrics without which the trial can't go on
    threads: int
    device: str
    gpus: float  # the trial's share of a GPU
    source_sha256: str  # of the driver's code
    data_dir: str | None
    data_hash: str
    split_hash: str
    picture_epochs: list[int]  # epochs at which the trial may end, so that its last pictures exist
    resume_from: str | None  # a checkpoint, relative to the sweep directory
    resume_sha256: str | None  # as its row has it
    again: dict[int, str]  # epochs whose rows exist and whose checkpoints are lost: the folders of those checkpoints
    last_epoch: NonNegativeInt  # of the rows that exist
    due: PositiveInt  # the next epoch that must be reported at once, because the driver decides there
    report_seconds: NonNegativeFloat  # epochs may wait for this long before they are reported together
    stop_file: str | None  # appears when the sweep is to stop
    best_checkpoint: str | None  # of the epochs before the resume
    best_value: float | None


ASSIGNMENTS = TypeAdapter(list[Assignment])  # for their JSON


@part
class ReportedRow:
    """One epoch of a trial: its row, and the checkpoint after it.

    ``metrics`` is the row: JSON values, without numbers that JSON cannot hold. ``diverged`` says why training cannot go
    on, and is None for a sound epoch. ``checkpoint`` and ``pictures`` are relative to the sweep directory. An epoch
    between two reports has a checkpoint only if it is the trial's best so far. ``age`` is the time in seconds from the
    end of the epoch to the report.
    """

    metrics: dict[str, Any]
    diverged: str | None = None
    checkpoint: str | None = None
    checkpoint_sha256: str | None = None
    pictures: dict[str, str] = dataclasses.field(default_factory=dict)
    age: NonNegativeFloat = 0.0

    @property
    def epoch(self) -> int:
        """The epoch that the row describes, counted from 1."""
        return int(self.metrics["epoch"])


@part
class Report:
    """What a worker sends to the driver: the epochs of a trial since the last report, in order.

    ``comparison`` holds the facts by which the rows may be ranked (``research.ledger.comparison``).
    """

    trial: NonNegativeInt
    attempt: NonNegativeInt
    epochs: PositiveInt  # of the whole trial
    rows: list[ReportedRow]
    worker: dict[str, Any]
    comparison: dict[str, Any] = dataclasses.field(default_factory=dict)


_REPORTS = TypeAdapter(list[Report])


def reports_to_json(reports: Sequence[Report]) -> str:
    """Return ``reports`` as JSON; :func:`reports_from_json` reads it.

    Raises:
        ValueError: a metric is NaN or infinite.

    """
    return json.dumps(_REPORTS.dump_python(list(reports)), allow_nan=False)


def reports_from_json(text: str) -> list[Report]:
    """Return the reports that :func:`reports_to_json` wrote."""
    return _REPORTS.validate_json(text)


class TrialsEnded(OwnExit):
    """Raised out of :meth:`Channel.report` when the driver has ended every trial of the worker."""


class Channel(Protocol):
    """A worker's connection to its driver."""

    def report(self, reports: Sequence[Report]) -> dict[int, int]:
        """Hand over epochs of one or several trials; return when the driver has written their rows.

        Returns the trials of ``reports`` that go on, each with the next epoch that must be reported at once.

        Raises:
            TrialsEnded: every trial of this worker has ended.

        """

    def pause_requested(self) -> bool:
        """Return True if training should pause between two steps, because the sweep stops. Called at every step."""

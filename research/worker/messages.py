"""The messages between a driver and its workers: :class:`Assignment` goes out, :class:`Report` comes back."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import TypeAdapter

from research.ledger.settings import Metric
from vae.config import NonNegativeInt, PositiveInt, part
from vae.system.user_code import OwnExit

if TYPE_CHECKING:
    from collections.abc import Collection


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
    stop_file: str | None  # appears when the sweep is to stop
    best_checkpoint: str | None  # of the epochs before the resume
    best_value: float | None


ASSIGNMENTS = TypeAdapter(list[Assignment])  # for their JSON


@part
class Report:
    """What a worker sends to the driver after an epoch of a trial: its row, and where its checkpoint is.

    ``metrics`` is the row: JSON values, without numbers that JSON cannot hold. ``diverged`` says why training cannot go
    on, and is None for a sound epoch. ``checkpoint`` and ``pictures`` are relative to the sweep directory.
    ``comparison`` holds the facts by which the row may be ranked (``research.ledger.comparison``).
    """

    trial: NonNegativeInt
    attempt: NonNegativeInt
    epochs: PositiveInt  # of the whole trial
    metrics: dict[str, Any]
    diverged: str | None
    checkpoint: str | None
    checkpoint_sha256: str | None
    pictures: dict[str, str]
    worker: dict[str, Any]
    comparison: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def epoch(self) -> int:
        """The epoch that the row describes, counted from 1."""
        return int(self.metrics["epoch"])

    def to_json(self) -> str:
        """Return the report as JSON; :meth:`from_json` reads it.

        Raises:
            ValueError: a metric is NaN or infinite.

        """
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return json.dumps(values, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Report:
        """Return the report that :meth:`to_json` wrote."""
        return cls(**json.loads(text))


class TrialsEnded(OwnExit):
    """Raised out of :meth:`Channel.report` when the driver has ended every trial of the worker."""


class Channel(Protocol):
    """A worker's connection to its driver."""

    def report(self, report: Report) -> None:
        """Hand over an epoch; return when the driver has written its row.

        Raises:
            TrialsEnded: every trial of this worker has ended.

        """

    def ended(self, trials: Collection[int]) -> set[int]:
        """Return those of ``trials`` that the driver has ended."""

    def pause_requested(self) -> bool:
        """Return True if training should pause between two steps, because the sweep stops. Called at every step."""

"""The events of a sweep's ledger, frozen and typed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, JsonValue

from research.ledger import checks
from research.ledger.settings import Budget, SpaceSource, SweepSettings
from research.redaction import redacted, redacted_command
from vae.config import NonNegativeInt, PositiveInt, part

if TYPE_CHECKING:
    from collections.abc import Sequence

# "impossible" and "duplicate" name draws that were never trained: impossible by the space's own word, or trained already.
# "incomparable" is a trial whose figures may not be ranked with the sweep's (research.ledger.comparison).
FailKind = Literal[
    "bug", "diverged", "out_of_memory", "lost", "stuck", "config", "data", "impossible", "duplicate", "incomparable"
]
Decision = Literal["continue", "complete", "pruned", "fail"]
RetryCause = Literal["driver", "lost", "preempted", "stuck", "out_of_memory", "stack"]
STANDARD_ERROR = "_se"  # after a metric's name, where a row is the mean of several replicates
REPLICATES = "_replicates"  # the same: its value in each of them
SKIPPED: tuple[FailKind, ...] = ("impossible", "duplicate")
Facts = dict[str, JsonValue]
Moment = Annotated[str, AfterValidator(checks.moment)]  # ISO 8601 with its time zone


def _without_surrogates(text: object) -> object:
    return text.encode("utf-8", "replace").decode() if isinstance(text, str) else text


# A traceback may quote a file name that is not UTF-8; that must not keep a failure from being written down.
# Nor may a secret that it quotes be written down with it.
Text = Annotated[str, BeforeValidator(_without_surrogates), AfterValidator(redacted)]


@part
class SweepCreated:
    """The first event: what the sweep is. Nothing in it ever changes."""

    type: Literal["sweep"] = "sweep"
    settings: SweepSettings
    code: Facts
    versions: dict[str, str]
    command: Annotated[list[str], AfterValidator(redacted_command)]


@part
class SessionStarted:
    """A driver began to work on the sweep: generation 0 at its creation, one more at each resume."""

    type: Literal["session"] = "session"
    generation: NonNegativeInt
    pid: int
    host: str
    code: Facts
    versions: dict[str, str]
    hardware: Facts


@part
class TrialCreated:
    """A trial was sampled. ``distributions`` holds Optuna's JSON of each parameter's distribution."""

    type: Literal["trial"] = "trial"
    trial: NonNegativeInt
    params: Facts
    distributions: dict[str, str]
    config: Facts
    config_hash: str
    seed: int
    sampler_seed: int
    sampler_attributes: Facts = Field(default_factory=dict)  # what the sampler wrote on the trial, to rebuild it
    source: str | None = None  # where a config that was not sampled comes from
    parent_trial: int | None = None  # of a finalist: the trial of the parent sweep whose config it repeats


@part
class RowReported:
    """One epoch of a trial and the decision on it. Any decision except ``continue`` ends the trial.

    ``metrics`` is the whole row with its ``measure``; a value that was not finite is None. Paths are relative to the sweep
    directory. A row without a checkpoint can be trained again from an earlier one. ``checkpoint_sha256`` is the SHA-256 of
    the checkpoint's ``state.safetensors``. ``time`` is the end of the epoch; None means the time of the event.
    """

    type: Literal["row"] = "row"
    trial: NonNegativeInt
    epoch: NonNegativeInt
    attempt: NonNegativeInt = 0
    metrics: Facts
    decision: Decision = "continue"
    reason: Text | None = None
    judged: list[NonNegativeInt] = Field(default_factory=list)  # the rungs that this decision settles
    checkpoint: str | None = None
    checkpoint_sha256: str | None = None
    pictures: dict[str, str] = Field(default_factory=dict)
    worker: Facts = Field(default_factory=dict)
    comparison: Facts = Field(default_factory=dict)  # research.ledger.comparison; empty in ledgers of 0.1.0
    time: Moment | None = None


@part
class DecidedRow:
    """One row of :class:`RowsReported`: the fields of :class:`RowReported` that differ between the rows of a report."""

    epoch: NonNegativeInt
    time: Moment
    metrics: Facts
    decision: Decision = "continue"
    reason: Text | None = None
    judged: list[NonNegativeInt] = Field(default_factory=list)
    checkpoint: str | None = None
    checkpoint_sha256: str | None = None
    pictures: dict[str, str] = Field(default_factory=dict)


@part
class RowsReported:
    """Several epochs of a trial that its worker reported together, in order of epochs, each with its decision."""

    type: Literal["rows"] = "rows"
    trial: NonNegativeInt
    attempt: NonNegativeInt = 0
    rows: Annotated[list[DecidedRow], Field(min_length=1)]
    worker: Facts = Field(default_factory=dict)
    comparison: Facts = Field(default_factory=dict)

    @classmethod
    def of(cls, rows: Sequence[RowReported]) -> RowsReported:
        """Return the event of ``rows``, which share trial, attempt, worker and comparison, and have times."""
        first = rows[0]
        each = [
            DecidedRow(
                epoch=row.epoch,
                time=row.time or "",
                metrics=row.metrics,
                decision=row.decision,
                reason=row.reason,
                judged=row.judged,
                checkpoint=row.checkpoint,
                checkpoint_sha256=row.checkpoint_sha256,
                pictures=row.pictures,
            )
            for row in rows
        ]
        return cls(
            trial=first.trial, attempt=first.attempt, rows=each, worker=first.worker, comparison=first.comparison
        )

    def each(self) -> list[RowReported]:
        """Return the rows as if each had been reported by itself."""
        return [
            RowReported(
                trial=self.trial,
                epoch=row.epoch,
                attempt=self.attempt,
                metrics=row.metrics,
                decision=row.decision,
                reason=row.reason,
                judged=row.judged,
                checkpoint=row.checkpoint,
                checkpoint_sha256=row.checkpoint_sha256,
                pictures=row.pictures,
                worker=self.worker,
                comparison=self.comparison,
                time=row.time,
            )
            for row in self.rows
        ]


@part
class TrialRetried:
    """A trial lost its worker and continues from its last checkpoint as ``attempt``.

    ``cause`` ``driver``: the driver was restarted. ``out_of_memory``: of its share of a GPU; from here on it gets a
    whole one.
    """

    type: Literal["retry"] = "retry"
    trial: NonNegativeInt
    attempt: NonNegativeInt
    reason: Text
    cause: RetryCause = "driver"


@part
class TrialFailed:
    """A trial ended without a deciding row. ``reason`` is one line, ``detail`` the traceback."""

    type: Literal["end"] = "end"
    trial: NonNegativeInt
    kind: FailKind
    reason: Text
    detail: Text = ""


@part
class Interrupted:
    """The driver was asked to stop; trials that were running continue at the next resume."""

    type: Literal["interrupted"] = "interrupted"
    reason: Text


@part
class SweepExtended:
    """The sweep was given more to do: what holds from here on."""

    type: Literal["extended"] = "extended"
    trials: PositiveInt
    budget: Budget
    space: SpaceSource | None = None  # another space than before


@part
class LearnedTrial:
    """A finished trial of another sweep: what a sampler needs of it."""

    trial: NonNegativeInt
    params: Facts
    distributions: dict[str, str]
    complete: bool  # else pruned
    values: list[float]  # of the objectives, where complete
    curve: dict[str, float]  # of the metric, by epoch
    violations: list[float] = Field(default_factory=list)


@part
class TrialsLearned:
    """Finished trials of another sweep, which the sampler learns from before its first draw."""

    type: Literal["learned"] = "learned"
    name: str
    identity: str
    trials: list[LearnedTrial]


Event = Annotated[
    SweepCreated
    | SweepExtended
    | TrialsLearned
    | SessionStarted
    | TrialCreated
    | RowReported
    | RowsReported
    | TrialRetried
    | TrialFailed
    | Interrupted,
    Field(discriminator="type"),
]

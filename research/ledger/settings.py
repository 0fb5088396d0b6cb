"""The definition of a sweep: written once, into the first event of its ledger, and never changed by a resume."""

from __future__ import annotations

import math
import zlib
from typing import Annotated, Literal

from pydantic import Field, JsonValue

from vae.config import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, part

NAME_PATTERN = r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}$"


@part
class Metric:
    """A metric and its direction, for example ``val/elbo``, where larger is better."""

    name: str = "val/elbo"
    direction: Literal["maximize", "minimize"] = "maximize"

    def better(self, a: float, b: float) -> bool:
        """Return True if ``a`` is strictly better than ``b``."""
        return a > b if self.direction == "maximize" else a < b


@part
class Constraint:
    """A condition on a trial's best row, for example ``val/samples_as_asked>=0.95``. Trials that violate it rank below others."""

    metric: str
    relation: Literal[">=", "<="]
    bound: float

    def violation(self, value: float | None) -> float:
        """Return the violation by ``value``: 0 or less if the constraint is satisfied, infinite without a value."""
        if value is None:
            return math.inf
        return self.bound - value if self.relation == ">=" else value - self.bound

    def __str__(self) -> str:
        return f"{self.metric}{self.relation}{self.bound:g}"


@part
class Asha:
    """Asynchronous successive halving (Li et al. 2020, arXiv:1810.05934), decided from the ledger.

    A trial that reaches a rung (``grace × reduction^i`` epochs) is stopped unless its best value so far is among
    the top ``1/reduction`` of the values seen at that rung. Before ``min_population`` trials, this one included,
    have reached it no trial is judged there. Trials that passed before are judged then, by their values at the rung.
    """

    kind: Literal["asha"] = "asha"
    grace: PositiveInt = 1
    reduction: Annotated[int, Field(ge=2)] = 3
    min_population: Annotated[int, Field(ge=2)] = 3


@part
class Hyperband:
    """Hyperband (Li et al. 2018, arXiv:1603.06560), each bracket an asynchronous halving of its own.

    Bracket ``b`` has its first rung at ``grace × reduction^b`` epochs, the last bracket stops nothing. A trial's
    bracket follows from its number, in Hyperband's proportions; only trials of one bracket are compared.
    """

    kind: Literal["hyperband"] = "hyperband"
    grace: PositiveInt = 1
    reduction: Annotated[int, Field(ge=2)] = 3
    min_population: Annotated[int, Field(ge=2)] = 3

    def bracket(self, epochs: int, trial: int) -> int:
        """The bracket of trial number ``trial``, drawn by a hash of the number."""
        last = len(_halvings(self.grace, self.reduction, epochs))
        # Trials that Hyperband starts in bracket b (its s = last − b): ceil((last + 1) / (s + 1) · reduction^s).
        sizes = [math.ceil((last + 1) / (s + 1) * self.reduction**s) for s in range(last, -1, -1)]
        point = zlib.crc32(str(trial).encode()) % sum(sizes)
        return next(b for b in range(last + 1) if point < sum(sizes[: b + 1]))


@part
class MedianRule:
    """The median stopping rule (Golovin et al. 2017, Google Vizier).

    Every ``grace`` epochs a trial is stopped whose best value so far is worse than the median of the other
    trials' running means up to the same epoch, once ``min_population`` trials, this one included, have come so far.
    """

    kind: Literal["median"] = "median"
    grace: PositiveInt = 1
    min_population: Annotated[int, Field(ge=2)] = 5


@part
class NoScheduler:
    """Every trial runs to the full budget."""

    kind: Literal["none"] = "none"


Scheduler = Annotated[Asha | Hyperband | MedianRule | NoScheduler, Field(discriminator="kind")]


def rungs(scheduler: Scheduler, epochs: int, trial: int | None = None) -> list[int]:
    """The epochs, short of the full budget, at which trial number ``trial`` may be stopped; None: any trial."""
    match scheduler:
        case NoScheduler():
            return []
        case Asha():
            return _halvings(scheduler.grace, scheduler.reduction, epochs)
        case Hyperband():
            first = 0 if trial is None else scheduler.bracket(epochs, trial)
            return _halvings(scheduler.grace, scheduler.reduction, epochs)[first:]
        case MedianRule():
            return list(range(scheduler.grace, epochs, scheduler.grace))


def _halvings(grace: int, reduction: int, epochs: int) -> list[int]:
    found = []
    rung = grace
    while rung < epochs:
        found.append(rung)
        rung *= reduction
    return found


@part
class Tpe:
    """Tree-structured Parzen estimator (Bergstra et al. 2011), multivariate, grouped, with the constant liar."""

    kind: Literal["tpe"] = "tpe"
    startup_trials: PositiveInt = 10


@part
class RandomSearch:
    """Independent draws from the space."""

    kind: Literal["random"] = "random"


@part
class Grid:
    """Every combination of a finite space once, in random order; conditional parameters too."""

    kind: Literal["grid"] = "grid"


@part
class QuasiRandom:
    """A scrambled Sobol sequence over the parameters that every config has; what only some have is drawn at random."""

    kind: Literal["quasi_random"] = "quasi_random"


@part
class Nsga2:
    """NSGA-II (Deb et al. 2002): generations of ``population`` trials, for several objectives above all."""

    kind: Literal["nsga2"] = "nsga2"
    population: Annotated[int, Field(ge=2)] = 20


@part
class OptunaSampler:
    """Any sampler of Optuna's by its class name, with the arguments of its constructor."""

    kind: Literal["optuna"] = "optuna"
    name: str
    options: dict[str, JsonValue] = Field(default_factory=dict)


Sampler = Annotated[Tpe | RandomSearch | Grid | QuasiRandom | Nsga2 | OptunaSampler, Field(discriminator="kind")]


@part
class Budget:
    """When a sweep has spent enough, beside its number of trials. None: no such limit.

    ``hours`` is wall clock of its drivers, all sessions together; at its end running trials are saved, as after Ctrl-C.
    The others let running trials end and start no new one: ``trial_hours``, the hours that trials
    spent training and evaluating, all together; ``total_epochs``; ``patience``, trials since the best one.
    """

    hours: PositiveFloat | None = None
    trial_hours: PositiveFloat | None = None
    total_epochs: PositiveInt | None = None
    patience: PositiveInt | None = None


@part
class StartFrom:
    """Parameters to try before anything is sampled, and where they were taken from."""

    params: dict[str, JsonValue]
    source: str


@part
class Parent:
    """The sweep whose best configs are trained again: its name and the identity of its ledger."""

    name: str
    identity: str


@part
class Resources:
    """The resources of each trial. ``gpus_per_trial``: a whole GPU, a share of one, or none."""

    concurrent: PositiveInt = 1
    cpus_per_trial: PositiveFloat = 1.0
    gpus_per_trial: NonNegativeFloat = 0.0
    threads: PositiveInt = 1


@part
class SpaceSource:
    """The space as it was: by what it was named, its whole source text and that text's sha256."""

    name: str
    source: str
    sha256: str


@part
class SweepSettings:
    """Everything that decides what a sweep samples, trains, ranks and keeps."""

    name: Annotated[str, Field(pattern=NAME_PATTERN)]
    space: SpaceSource
    metric: Metric  # a scalar: early stopping, each trial's best row, and the ranking where there is no front
    objectives: tuple[Metric, ...] = ()  # two or more: the search is for their Pareto front
    constraints: tuple[Constraint, ...] = ()
    data: str | None = None  # trained on in place of the space's own set
    trials: PositiveInt
    epochs: PositiveInt | None = None  # None: each config's own
    keep: PositiveInt = 3
    seed: NonNegativeInt = 0
    sampler: Sampler = Tpe()
    scheduler: Scheduler = Asha()
    budget: Budget = Budget()
    start_from: tuple[StartFrom, ...] = ()
    replicates: PositiveInt = 1  # seeds of each config; a row is their mean
    stack: PositiveInt = 1  # trials that a worker trains as one batched model
    parent: Parent | None = None
    deterministic: bool = False
    resources: Resources = Resources()
    max_failed: PositiveInt = 10  # this many failures in a row end a session
    report_seconds: NonNegativeFloat = 1.0  # epochs wait for this long before they are reported together; new in 0.2.0
    stuck_minutes: NonNegativeFloat = 120.0  # without an epoch; see research.driver.watchdog
    measure: str  # the one measure that all rows share (vae.measure)
    comparison: dict[str, JsonValue] = Field(default_factory=dict)  # the facts that all rows share; empty before 0.2.0
    data_hash: str
    split_hash: str
    label_names: tuple[str, ...] = ()  # of the data, by number; empty where each label is called by its number
    data_dir: str | None = None
    wandb: Literal["offline", "online", "disabled"] = "offline"
    wandb_project: str = "vae-research"

    @property
    def targets(self) -> tuple[Metric, ...]:
        """The metrics that the sampler optimises: the objectives, or the single metric."""
        return self.objectives or (self.metric,)

    @property
    def compared_by(self) -> list[str]:
        """The metrics by which rows of this sweep are ranked, stopped, kept, or called feasible."""
        constrained = [constraint.metric for constraint in self.constraints]
        return [self.metric.name, *(objective.name for objective in self.objectives), *constrained]

    @property
    def takes_first(self) -> bool:
        """Return True if held-out subsets are the first examples in file order, as in sweeps of version 0.1.0."""
        return self.shared.get("eval.subset", "first") == "first"

    @property
    def shared(self) -> dict[str, JsonValue]:
        """The facts that all rows share, as far as the settings say (research.ledger.comparison)."""
        return self.comparison or {"measure": self.measure}

"""What defines a sweep: written once, into the first event of its ledger, and never changed by a resume."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field

from vae.config import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, part

NAME_PATTERN = r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}$"


@part
class Metric:
    """What the sweep ranks by, e.g. ``val/elbo``, larger is better."""

    name: str = "val/elbo"
    direction: Literal["maximize", "minimize"] = "maximize"

    def better(self, a: float, b: float) -> bool:
        """Whether ``a`` is strictly better than ``b``."""
        return a > b if self.direction == "maximize" else a < b


@part
class Constraint:
    """What a trial's best row must satisfy, e.g. ``val/samples_as_asked>=0.95``; others rank below those that do."""

    metric: str
    relation: Literal[">=", "<="]
    bound: float

    def violation(self, value: float | None) -> float:
        """How far ``value`` is from satisfying it: at most 0 where it does, infinite where there is none."""
        if value is None:
            return math.inf
        return self.bound - value if self.relation == ">=" else value - self.bound

    def __str__(self) -> str:
        return f"{self.metric}{self.relation}{self.bound:g}"


@part
class Asha:
    """Asynchronous successive halving (Li et al. 2020, arXiv:1810.05934), decided from the ledger.

    A trial that reaches a rung (``grace × reduction^i`` epochs) is stopped unless its best value so far is among
    the top ``1/reduction`` of the values seen at that rung; nothing is stopped at a rung before
    ``min_population`` trials, this one included, have reached it.
    """

    kind: Literal["asha"] = "asha"
    grace: PositiveInt = 1
    reduction: Annotated[int, Field(ge=2)] = 3
    min_population: Annotated[int, Field(ge=2)] = 5


@part
class NoScheduler:
    """Every trial runs to the full budget."""

    kind: Literal["none"] = "none"


Scheduler = Annotated[Asha | NoScheduler, Field(discriminator="kind")]


def rungs(scheduler: Scheduler, epochs: int) -> list[int]:
    """The epochs, short of the full budget, at which a trial may be stopped."""
    match scheduler:
        case NoScheduler():
            return []
        case Asha():
            found = []
            rung = scheduler.grace
            while rung < epochs:
                found.append(rung)
                rung *= scheduler.reduction
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


Sampler = Annotated[Tpe | RandomSearch, Field(discriminator="kind")]


@part
class Resources:
    """What the cluster gives each trial."""

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
    metric: Metric
    constraints: tuple[Constraint, ...] = ()
    data: str | None = None  # trained on in place of the space's own set
    trials: PositiveInt
    epochs: PositiveInt | None = None  # None: each config's own
    keep: PositiveInt = 3
    seed: NonNegativeInt = 0
    sampler: Sampler = Tpe()
    scheduler: Scheduler = Asha()
    deterministic: bool = False
    resources: Resources = Resources()
    measure: str  # the one measure that all rows share (vae.measure)
    data_hash: str
    split_hash: str
    data_dir: str | None = None
    wandb: Literal["offline", "online", "disabled"] = "offline"
    wandb_project: str = "vae-research"

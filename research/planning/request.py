"""A sweep as a person asks for it: every option with its default, once for the command line and for Python.

This module is cheap to import: the page of ``--help`` reads the defaults here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from research.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_AT_LEAST = {
    "trials": 1,
    "epochs": 1,
    "keep": 1,
    "concurrent": 1,
    "seed": 0,
    "grace": 1,
    "reduction": 2,
    "min_population": 2,
    "max_failed": 1,
    "report_seconds": 0,
    "stuck_minutes": 0,
    "replicates": 1,
    "stack": 1,
}
_NUMBERS = ("report_seconds", "stuck_minutes")  # the others are whole numbers
_LISTS = ("metric", "constraint", "sampler_option", "start_from", "learn_from")


@dataclass(frozen=True, kw_only=True)
class SweepRequest:
    """The options of a sweep; ``research sweep --help`` and docs/ describe each of them at length.

    The fields are checked when a sweep is begun (:func:`research.run_sweep`). Numbers that no sweep can have are refused
    at once.

    Raises:
        UserError: a number is too small, or an option has a value of the wrong type.

    """

    space: str | Path | Callable[..., object]
    """A name in ``search_spaces/``, the path of a file with a function ``space``, or such a function, from a trial of
    Optuna's to a TrainConfig."""
    trials: int = 20
    """The number of configs to try."""
    epochs: int | None = None
    """The full budget of a trial, in epochs. None: the space's own."""
    metric: Sequence[str] = ()
    """The metric that ranks trials; two or more are the objectives of a Pareto front. Empty: the one that orders them."""
    stop_by: str | None = None
    """The scalar of early stopping and of each trial's best epoch, if there are several metrics."""
    constraint: Sequence[str] = ()
    """Conditions that a model must satisfy, for example ``val/active_units>=5``."""
    data: str | None = None
    """The kind of a data set that replaces the space's own. None: the space's own."""
    keep: int = 3
    """The number of best models to keep."""
    data_dir: str | Path | None = None
    """The place of the data sets: a folder or an address. None: ``$RESEARCH_DATA_DIR``, else ``./data``."""
    name: str | None = None
    """The sweep's name. None: the space's name with the time."""
    storage: str | Path = Path("sweeps")
    """The sweep lives in ``storage/name``: a folder, or an address of an object store."""
    cpus_per_trial: float | None = None
    """CPUs for each trial. None: the cores divided by ``concurrent``."""
    gpus_per_trial: float | str = "0"
    """GPUs for each trial: 0, 1, a share such as 0.25, or ``auto``, which measures how many trials fit."""
    concurrent: int | None = None
    """Trials at a time. None: as many as fit."""
    address: str | None = None
    """An existing Ray cluster. None: a Ray of its own. ``none``: this process, without Ray, one trial at a time."""
    seed: int = 0
    """The sweep's seed, from which everything else follows."""
    deterministic: bool = False
    """Make the sweep a function of seed and slots: trials wait for the trials before them."""
    sampler: str = "tpe"
    """``tpe``, ``random``, ``grid``, ``quasi-random``, ``nsga2``, or an Optuna sampler by its class name."""
    sampler_option: Sequence[str] = ()
    """``NAME=VALUE`` for the sampler, for example ``startup_trials=20``."""
    scheduler: Literal["asha", "hyperband", "median", "none"] = "asha"
    """Early stopping."""
    grace: int | None = None
    """The first epoch at which a trial may be stopped. None: after every warm-up."""
    reduction: int = 3
    """ASHA and HyperBand keep the best ``1/reduction`` of the trials at each rung."""
    min_population: int | None = None
    """The number of trials that must have reached a rung before any is stopped there. None: 3, and 5 for the median rule."""
    hours: float | None = None
    """Stop after this many hours of wall clock. Running trials can be resumed."""
    trial_hours: float | None = None
    """Start no more trials after this many hours of training, all trials together."""
    total_epochs: int | None = None
    """Start no more trials after this many epochs, all trials together."""
    patience: int | None = None
    """Start no more trials after this many without a better one."""
    max_failed: int = 10
    """Start no more trials after this many in a row have failed."""
    report_seconds: float = 1.0
    """Report and save the epochs of a trial together, at most this many seconds after the first of them. 0: each by itself."""
    stuck_minutes: float = 120.0
    """End a trial that reports nothing for this long, and run it again once. 0: never."""
    replicates: int = 1
    """Seeds of each config: a row is their mean, and early stopping judges the mean."""
    stack: int = 1
    """Train this many trials as one batched model, where their shapes allow it."""
    start_from: Sequence[str] = ()
    """Configs to try first: a sweep's best, a record, a model, or a file of parameters as JSON."""
    learn_from: Sequence[str | Path] = ()
    """Sweeps whose finished trials the sampler learns from."""
    wandb: Literal["offline", "online", "disabled"] | None = None
    """The mode of W&B. None: online when logged in, else offline."""
    wandb_project: str = "vae-research"
    """The W&B project."""

    def __post_init__(self) -> None:
        """Refuse numbers that no sweep can have, and make lists of single values."""
        for name, least in _AT_LEAST.items():
            value = getattr(self, name)
            kinds = int | float if name in _NUMBERS else int
            number = isinstance(value, kinds) and not isinstance(value, bool)
            if value is not None and not (number and value >= least):
                what = "a number" if name in _NUMBERS else "a whole number"
                raise UserError(f"{name} must be {what} of at least {least}, got {value!r}")
        for name in _LISTS:
            value = getattr(self, name)
            single = isinstance(value, str | Path)
            object.__setattr__(self, name, (value,) if single else tuple(value or ()))

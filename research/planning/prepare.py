"""The checks of a sweep's request, and the settings that come out of them."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from research.errors import UserError
from research.ledger.settings import SweepSettings
from research.paths import whole
from research.planning import preflight
from research.planning.data_notes import data_notes
from research.planning.earlier import learn_from, start_from
from research.planning.free_space import check_free_space, check_temporary
from research.planning.metrics import parse_constraint, parse_metric
from research.planning.options import budget_of, sampler_of, scheduler_of
from research.planning.resources import NO_GPU, automatic_share, gpu_share, local_gpus, resources_of
from research.planning.tracking_mode import Mode, default_mode
from research.search.function_source import space_of_function
from research.search.no_secrets import refuse_in_settings
from research.search.samplers import rehearse
from research.search.spaces import Space, load_space, random_draws
from research.store.data_copy import data_address, data_directory
from research.store.mirror import place
from research.store.object_store import is_url
from vae.train_config import TrainConfig

if TYPE_CHECKING:
    from collections.abc import Sequence

    from research.ledger.events import TrialsLearned
    from research.ledger.settings import Budget, Constraint, Metric, Resources, Sampler, Scheduler, StartFrom
    from research.planning.preflight import Findings
    from research.planning.request import SweepRequest
    from vae.external_metric import ExternalMetric


@dataclass(frozen=True)
class Prepared:
    """A sweep that passed every check and can be begun."""

    directory: Path
    settings: SweepSettings
    space: Space
    learned: list[TrialsLearned]
    notes: list[str]  # worth reading before it starts


@dataclass(frozen=True)
class _Read:
    """A request whose options were understood."""

    space: Space
    name: str
    objectives: tuple[Metric, ...]
    scalar: Metric | None
    constraints: tuple[Constraint, ...]
    sampler: Sampler
    scheduler: Scheduler
    budget: Budget
    start_from: tuple[StartFrom, ...]
    wandb: Mode
    share: float | None  # of a GPU; None: to be measured
    resources: Resources


def check(request: SweepRequest) -> str:
    """Check everything that needs neither the data nor the cluster, and no object store; return the sweep's name.

    Raises:
        UserError: an option, or what the space draws, is not right.

    """
    here = [source for source in request.start_from if not is_url(source)]
    read = _read(dataclasses.replace(request, start_from=here))
    drawn, _ = preflight.check_draws(
        read.space,
        metric=read.scalar,
        epochs=request.epochs,
        seed=request.seed,
        data=request.data,
        constraints=read.constraints,
        objectives=read.objectives,
    )
    preflight.resolve_scheduler(read.scheduler, drawn.configs, grace=request.grace)
    return read.name


def prepare(request: SweepRequest) -> Prepared:
    """Check a request with its data on this machine. Nothing is written.

    Raises:
        UserError: what is wrong and what to do. DataError: the data can't be read.

    """
    # Absolute before any code of the space runs, which may change the working directory.
    storage = place(request.storage)
    data_dir = request.data_dir or os.environ.get("RESEARCH_DATA_DIR") or None
    if data_dir is not None and not is_url(str(data_dir)):
        data_dir = whole(data_dir)
    others = [source if is_url(str(source)) else whole(source) for source in request.learn_from]
    read = _read(request)
    directory = preflight.check_place(storage, read.name)
    if request.address is not None:
        preflight.check_address(request.address)
    if read.share is None and local_gpus() == 0:
        raise UserError(f"--gpus-per-trial auto measures on a GPU of this machine, and {NO_GPU}")
    data_dir = data_directory(data_dir)
    found = preflight.check_space(
        read.space,
        metric=read.scalar,
        epochs=request.epochs,
        seed=request.seed,
        data_dir=data_dir,
        data=request.data,
        constraints=read.constraints,
        objectives=read.objectives,
    )
    notes = data_notes(found.data, found.survey.configs)
    resources = read.resources
    if read.share is None:
        resources, why = _measured(request, read, found, data_dir)
        notes.insert(0, why)
    settings = _settings(request, read, found, resources, data_address(data_dir))
    refuse_in_settings(settings)
    if request.address is None:
        check_temporary()
    check_free_space(
        storage,
        found.survey.configs,
        found.data,
        concurrent=resources.concurrent,
        replicates=request.replicates,
        keep=min(request.keep, request.trials),
    )
    budgets = {config.epochs for config in found.survey.configs}
    learned = [learn_from(source, settings, budgets) for source in others]
    trials = [trial for event in learned for trial in event.trials]
    rehearse(read.space, settings, trials, preflight.comparability(settings))
    return Prepared(directory, settings, read.space, learned, notes)


def _read(request: SweepRequest) -> _Read:
    """Understand each option by itself."""
    firsts = tuple(start for source in request.start_from for start in start_from(source))
    space = space_of_function(request.space) if callable(request.space) else load_space(str(request.space))
    name = request.name
    if name is None:
        name = f"{Path(space.source.name).stem}-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    preflight.check_name(name)
    own = _own_metrics(space, request)
    metrics = tuple(parse_metric(text, own) for text in request.metric)
    if request.stop_by is not None and len(metrics) < 2:  # noqa: PLR2004 - a front has two
        raise UserError(f"--stop-by {request.stop_by!r} is for two or more --metric; one is stopped by itself")
    objectives = metrics if len(metrics) > 1 else ()
    scalar = metrics[0] if len(metrics) == 1 else None
    if request.stop_by is not None:
        scalar = parse_metric(request.stop_by, own)
    constraints = tuple(parse_constraint(text, own) for text in request.constraint)
    if constraints and request.scheduler != "none":
        raise UserError(
            "--constraint needs --scheduler none: early stopping looks at the metric alone and would end the trials that "
            "satisfy the constraint first"
        )
    if request.stack > 1 and request.replicates > 1:
        raise UserError(
            f"--stack {request.stack} is for trials of one seed, got --replicates {request.replicates}; leave one of them out"
        )
    if request.address == preflight.IN_PROCESS and request.stack > 1:
        raise UserError(
            f"--address none trains one trial at a time, got --stack {request.stack}: leave out one of them"
        )
    wandb = request.wandb or default_mode()
    if wandb not in get_args(Mode):
        raise UserError(f"--wandb must be one of {', '.join(get_args(Mode))}, got {wandb!r}")
    share = gpu_share(str(request.gpus_per_trial))
    return _Read(
        space=space,
        name=name,
        objectives=objectives,
        scalar=scalar,
        constraints=constraints,
        sampler=sampler_of(request.sampler, request.sampler_option),
        scheduler=scheduler_of(request.scheduler, reduction=request.reduction, min_population=request.min_population),
        budget=budget_of(
            hours=request.hours,
            trial_hours=request.trial_hours,
            total_epochs=request.total_epochs,
            patience=request.patience,
        ),
        start_from=firsts,
        wandb=wandb,
        share=share,
        # With auto, everything but the share can be validated here already.
        resources=_resources(request, 1.0 if share is None else share),
    )


def _own_metrics(space: Space, request: SweepRequest) -> Sequence[ExternalMetric]:
    """Return the metrics that the space adds: those of its first valid draw, as they belong to the sweep."""
    if not (request.metric or request.stop_by or request.constraint):
        return ()
    drawn = random_draws(space, epochs=request.epochs, seed=request.seed, count=50, data=request.data)
    return next((config.metrics for _, config in drawn if isinstance(config, TrainConfig)), ())


def _resources(request: SweepRequest, share: float) -> Resources:
    return resources_of(
        concurrent=request.concurrent,
        cpus_per_trial=request.cpus_per_trial,
        gpus_per_trial=share,
        address=request.address,
    )


def _measured(request: SweepRequest, read: _Read, found: Findings, data_dir: Path | None) -> tuple[Resources, str]:
    """Return the resources with the share of a GPU that fits, and a line that says why."""
    share, why = automatic_share(
        read.space,
        found.data,
        gpus=local_gpus() if request.address in {None, preflight.IN_PROCESS} else 1,
        at_once=request.concurrent or preflight.available_cpus(),
        epochs=request.epochs,
        seed=request.seed,
        data_set=request.data,
        data_dir=data_dir,
        replicates=request.replicates,
        metric=found.metric.name,
    )
    return _resources(request, share), why


def _settings(
    request: SweepRequest, read: _Read, found: Findings, resources: Resources, data_dir: str | None
) -> SweepSettings:
    return SweepSettings(
        name=read.name,
        space=read.space.source,
        metric=found.metric,
        objectives=read.objectives,
        constraints=read.constraints,
        data=request.data,
        trials=request.trials,
        epochs=request.epochs,
        keep=request.keep,
        seed=request.seed,
        sampler=read.sampler,
        scheduler=preflight.resolve_scheduler(read.scheduler, found.survey.configs, grace=request.grace),
        budget=read.budget,
        start_from=read.start_from,
        replicates=request.replicates,
        stack=request.stack,
        deterministic=request.deterministic,
        resources=resources,
        max_failed=request.max_failed,
        report_seconds=request.report_seconds,
        stuck_minutes=request.stuck_minutes,
        measure=found.measure,
        comparison=found.comparison,
        data_hash=found.data.data_hash,
        split_hash=found.data.split_hash,
        label_names=found.data.label_names,
        data_dir=data_dir,
        wandb=read.wandb,
        wandb_project=request.wandb_project,
    )

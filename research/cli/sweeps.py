"""The verbs that drive a sweep. What each needs is imported when it runs: ``--help`` waits for nothing."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from research.cli.options import AsJson, DataDir, console_of, data_dir_of, later, set_threads
from research.errors import UserError
from research.planning.request import SweepRequest
from research.store.data_copy import data_directory
from research.store.layout import SweepFolder
from research.store.mirror import local, relative
from research.terminal import complain, output_may_close, say
from research.text import json_text, shell

if TYPE_CHECKING:
    from rich.console import Console


Directory = Annotated[
    Path,
    typer.Argument(help="A sweep's directory, or its address (s3://...).", parser=later(local), metavar="DIRECTORY"),
]


def sweep(
    space: Annotated[str, typer.Argument(help="A name in search_spaces/ or the path of your own file.")],
    trials: Annotated[int, typer.Option(min=1, help="How many configs to try.")] = SweepRequest.trials,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Full budget of a trial. Default: the space's own.")
    ] = SweepRequest.epochs,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            help="What trials are ranked by. Default: val/elbo, where there is one that orders them. "
            "Given twice or more: objectives of a Pareto front, e.g. val/reconstruction:min and val/kl:min."
        ),
    ] = None,
    stop_by: Annotated[
        str | None,
        typer.Option(help="With several --metric: the scalar of early stopping and of each trial's best epoch."),
    ] = SweepRequest.stop_by,
    constraint: Annotated[
        list[str] | None,
        typer.Option(help="What a model must satisfy, e.g. 'val/active_units>=5'; others rank below. Repeatable."),
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Another data set than the space's own, e.g. digits.")
    ] = SweepRequest.data,
    keep: Annotated[int, typer.Option(min=1, help="How many of the sweep's best models to keep.")] = SweepRequest.keep,
    data_dir: DataDir = None,
    name: Annotated[
        str | None, typer.Option(help="The sweep's name. Default: the space's, with the time.")
    ] = SweepRequest.name,
    storage: Annotated[
        str,
        typer.Option(
            help="The sweep lives in STORAGE/NAME: a folder, s3://BUCKET/... or gs://BUCKET/...", metavar="PATH"
        ),
    ] = str(SweepRequest.storage),
    cpus_per_trial: Annotated[
        float | None, typer.Option(help="CPUs for each trial. Default: cores / concurrent.")
    ] = SweepRequest.cpus_per_trial,
    gpus_per_trial: Annotated[
        str,
        typer.Option(
            help="1, or a share: 0.25 puts four trials on each GPU; auto measures how many fit. 0: on the CPU."
        ),
    ] = str(SweepRequest.gpus_per_trial),
    concurrent: Annotated[
        int | None, typer.Option(min=1, help="Trials at a time. Default: as many as fit.")
    ] = SweepRequest.concurrent,
    address: Annotated[
        str | None,
        typer.Option(help="An existing Ray cluster, or none: no Ray, one trial at a time. Default: a Ray of its own."),
    ] = SweepRequest.address,
    seed: Annotated[int, typer.Option(min=0, help="The sweep's seed: all else follows from it.")] = SweepRequest.seed,
    deterministic: Annotated[
        bool,
        typer.Option(help="Make the sweep a function of seed and slots: trials wait for those before them."),
    ] = SweepRequest.deterministic,
    sampler: Annotated[
        str, typer.Option(help="tpe, random, grid, quasi-random, nsga2, or an Optuna sampler by its class name.")
    ] = SweepRequest.sampler,
    sampler_option: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE for the sampler, e.g. startup_trials=20. Repeatable.")
    ] = None,
    scheduler: Annotated[
        str, typer.Option(help="Early stopping: asha, hyperband, median or none.")
    ] = SweepRequest.scheduler,
    grace: Annotated[
        int | None, typer.Option(min=1, help="The first epoch at which a trial may stop. Default: past any warm-up.")
    ] = SweepRequest.grace,
    reduction: Annotated[
        int, typer.Option(min=2, help="ASHA and HyperBand keep the best 1/REDUCTION at each rung.")
    ] = SweepRequest.reduction,
    min_population: Annotated[
        int | None,
        typer.Option(
            min=2, help="How many trials must have reached a rung before any is stopped there. Default: 3; median 5."
        ),
    ] = SweepRequest.min_population,
    hours: Annotated[
        float | None, typer.Option(help="Stop after this many hours of wall clock. Running trials can be resumed.")
    ] = SweepRequest.hours,
    trial_hours: Annotated[
        float | None, typer.Option(help="Start no more trials after this many hours of training, all trials together.")
    ] = SweepRequest.trial_hours,
    total_epochs: Annotated[
        int | None, typer.Option(help="Start no more trials after this many epochs, all trials together.")
    ] = SweepRequest.total_epochs,
    patience: Annotated[
        int | None, typer.Option(help="Start no more trials after this many without a better one.")
    ] = SweepRequest.patience,
    max_failed: Annotated[
        int, typer.Option(min=1, help="Start no more trials after this many in a row have failed.")
    ] = SweepRequest.max_failed,
    report_seconds: Annotated[
        float,
        typer.Option(
            min=0.0,
            help="Report and save epochs together at most this many seconds after the first. 0: each by itself.",
        ),
    ] = SweepRequest.report_seconds,
    stuck_minutes: Annotated[
        float,
        typer.Option(
            min=0.0,
            help="A trial that reports no epoch for this long, and for ten times the slowest epoch, is ended "
            "and run again once. 0: never.",
        ),
    ] = SweepRequest.stuck_minutes,
    replicates: Annotated[
        int, typer.Option(min=1, help="Seeds of each config: a row is their mean, early stopping judges the mean.")
    ] = SweepRequest.replicates,
    stack: Annotated[
        int,
        typer.Option(
            min=1,
            help="Train this many trials as one batched model, where their shapes allow it. This pays on GPUs above all.",
        ),
    ] = SweepRequest.stack,
    start_from: Annotated[
        list[str] | None,
        typer.Option(
            help="Configs to try first: a sweep's best, a record, a model, or JSON of parameters. Repeatable."
        ),
    ] = None,
    learn_from: Annotated[
        list[str] | None,
        typer.Option(help="A sweep whose finished trials the sampler learns from. Repeatable.", metavar="DIRECTORY"),
    ] = None,
    wandb: Annotated[
        str | None,
        typer.Option(help="offline, online or disabled. Default: online when logged in, else offline."),
    ] = SweepRequest.wandb,
    wandb_project: Annotated[str, typer.Option(help="The W&B project.")] = SweepRequest.wandb_project,
) -> None:
    """Search a space: many trials, the best models kept, every number in the ledger."""
    request = SweepRequest(**locals())
    from research.driver.lifecycle import reopen  # noqa: PLC0415
    from research.experiments.sweeps import begin, opening_lines  # noqa: PLC0415

    prepared, engine = begin(request, sys.argv)
    console = console_of()
    with output_may_close():  # the sweep is there: what can't be printed stops it
        for line in opening_lines(prepared):
            console.print(line, soft_wrap=True)
    _drive(*reopen(prepared.directory, allow_changed_code=False), console, engine)


def resume(
    directory: Directory,
    address: Annotated[
        str | None,
        typer.Option(help="An existing Ray cluster, or none: no Ray, one trial at a time. Default: a Ray of its own."),
    ] = None,
    allow_changed_code: Annotated[
        bool, typer.Option(help="Go on although the code is not what the sweep was begun with.")
    ] = False,
) -> None:
    """Continue a sweep that was stopped or killed, from its ledger. Nothing that ended runs again."""
    if address is not None:
        from research.planning.preflight import check_address  # noqa: PLC0415

        check_address(address)
    from research.driver.lifecycle import reopen  # noqa: PLC0415
    from research.on_ray.choice import engine_at  # noqa: PLC0415

    ledger, space = reopen(directory, allow_changed_code=allow_changed_code)
    engine = engine_at(address)
    engine.check(ledger.settings.resources)
    _drive(ledger, space, console_of(), engine)


def extend(
    directory: Directory,
    trials: Annotated[str | None, typer.Option(help="+N more trials, or a new total.")] = None,
    space: Annotated[str | None, typer.Option(help="Draw from another space from here on, e.g. a wider one.")] = None,
    hours: Annotated[str | None, typer.Option(help="+HOURS of wall clock, or a new limit.")] = None,
    trial_hours: Annotated[str | None, typer.Option(help="+HOURS of training, or a new limit.")] = None,
    total_epochs: Annotated[str | None, typer.Option(help="+N epochs, or a new limit.")] = None,
    patience: Annotated[str | None, typer.Option(help="+N trials without a better one, or a new limit.")] = None,
    address: Annotated[
        str | None,
        typer.Option(help="An existing Ray cluster, or none: no Ray, one trial at a time. Default: a Ray of its own."),
    ] = None,
    allow_changed_code: Annotated[
        bool, typer.Option(help="Go on although the code is not what the sweep was begun with.")
    ] = False,
) -> None:
    """Give a sweep more to do and go on: its sampler knows all that was tried."""
    from research.driver.growth import extend as write_down  # noqa: PLC0415
    from research.ledger.budget import More  # noqa: PLC0415

    if address is not None:
        from research.planning.preflight import check_address  # noqa: PLC0415

        check_address(address)
    from research.driver.lifecycle import check_code, reopen  # noqa: PLC0415
    from research.ledger.log import Ledger  # noqa: PLC0415
    from research.on_ray.choice import engine_at  # noqa: PLC0415

    ledger = Ledger.open(directory)
    check_code(ledger, allow_changed_code=allow_changed_code)
    engine = engine_at(address)
    engine.check(ledger.settings.resources)
    more = More(hours=hours, trial_hours=trial_hours, total_epochs=total_epochs, patience=patience)
    event = write_down(ledger, trials=trials, space=space, more=more)

    console = console_of()
    with output_may_close():
        console.print(f"sweep {relative(directory)}: {event.trials} trials in all", soft_wrap=True)
    _drive(*reopen(directory, allow_changed_code=allow_changed_code), console, engine)


def finalists(
    directory: Directory,
    top: Annotated[int, typer.Option(min=1, help="How many of the best configs.")] = 5,
    seeds: Annotated[int, typer.Option(min=2, help="How many fresh seeds of each.")] = 5,
    nll: Annotated[
        int, typer.Option(min=0, max=5000, help="Importance samples for -log p(x) on test; 0: the bound alone.")
    ] = 500,
    images: Annotated[int, typer.Option(min=1, help="For --nll: the number of examples.")] = 1000,
    test: Annotated[bool, typer.Option(help="Look at the test split, once for each seed of the chosen config.")] = True,
    concurrent: Annotated[int | None, typer.Option(min=1, help="Trials at a time. Default: the sweep's.")] = None,
    data_dir: DataDir = None,
    address: Annotated[
        str | None,
        typer.Option(help="An existing Ray cluster, or none: no Ray, one trial at a time. Default: a Ray of its own."),
    ] = None,
    allow_changed_code: Annotated[
        bool, typer.Option(help="Go on although the code is not what the sweep was begun with.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Train a sweep's best configs again with fresh seeds, at full budget: how sure is its answer?"""
    if address is not None:
        from research.planning.preflight import check_address  # noqa: PLC0415

        check_address(address)
    from research.driver.lifecycle import check_code, reopen  # noqa: PLC0415
    from research.experiments import finalists as again  # noqa: PLC0415
    from research.ledger.log import Ledger  # noqa: PLC0415
    from research.on_ray.choice import engine_at  # noqa: PLC0415
    from research.planning.resources import resources_of  # noqa: PLC0415

    ledger = Ledger.open(directory)
    check_code(ledger, allow_changed_code=allow_changed_code)
    resources = None
    if concurrent is not None:
        share = ledger.settings.resources.gpus_per_trial
        resources = resources_of(concurrent=concurrent, cpus_per_trial=None, gpus_per_trial=share, address=address)
    engine = engine_at(address)
    engine.check(resources or ledger.settings.resources)
    place = again.prepare(ledger, top=top, seeds=seeds, resources=resources, command=sys.argv)
    console = console_of(quiet=as_json)
    if SweepFolder(place).ray.exists() or any(not view.terminal for view in Ledger.open(place).trials.values()):
        console.print(
            f"finalists {relative(place)}: the best {top} configs, {seeds} fresh seeds of each", highlight=False
        )
        _run(*reopen(place, allow_changed_code=allow_changed_code), console, engine)
    found = again.results(ledger)
    assert found is not None, "they were trained above"
    if found["configurations"][0]["mean"] is None:
        raise UserError(f"no finalist gave a result: {shell('research', 'show', relative(place))} has the reasons")
    if test:
        set_threads(1)
        chosen_data = data_dir_of(data_dir) or data_directory(ledger.settings.data_dir)
        found["test"] = again.look_at_test(found, nll_k=nll, images=images, data_dir=chosen_data, device="cpu")
    if as_json:
        say(json_text(found))
    console.print(again.table(found), highlight=False)


VERBS = (sweep, resume, extend, finalists)


def _drive(ledger: Any, space: Any, console: Console, engine: Any) -> None:  # noqa: ANN401 - Ledger, Space and Engine, imported late
    """Run a session and say how it ended.

    Exit 0: all trials ended; 1: none gave a result, or too many in a row failed; 128 + signal: stopped.
    """
    from research.driver.failures import summary  # noqa: PLC0415
    from research.views.show import glance  # noqa: PLC0415

    sweep_dir = relative(ledger.directory)
    outcome = _run(ledger, space, console, engine, before_leaving=glance)
    if outcome.budget is not None:
        option = outcome.budget.split()[0]
        console.print(
            f"{outcome.budget}: nothing more was started. {shell('research', 'extend', sweep_dir)} {option} +N goes on",
            highlight=False,
            soft_wrap=True,
        )
    if outcome.failing is not None:
        console.print(
            f"{outcome.failing}: nothing more was started. When that is mended: {shell('research', 'resume', sweep_dir)}",
            highlight=False,
            soft_wrap=True,
        )
    if (failed := summary(ledger)) is not None:
        console.print(failed, highlight=False, soft_wrap=True)
    if not ledger.ranked():
        console.print(
            f"no trial gave a result; all reasons: {shell('research', 'show', sweep_dir)} --json", highlight=False
        )
    if not ledger.ranked() or outcome.failing is not None:
        raise typer.Exit(1)


def _run(ledger: Any, space: Any, console: Console, engine: Any, before_leaving: Any = None) -> Any:  # noqa: ANN401 - Ledger, Space, Engine, a page and Outcome, imported late
    """Run a session; ``before_leaving`` is printed after it. Exit 128 + signal: stopped."""
    from research.driver.session import run  # noqa: PLC0415
    from research.views.live import LiveView  # noqa: PLC0415

    go_on = f"Continue with: {shell('research', 'resume', relative(ledger.directory))}"
    try:
        with output_may_close():
            outcome = run(ledger, space, LiveView(console, ledger), engine)
    except Exception as error:
        if not isinstance(error, UserError):
            complain(f"the driver failed, what was done is in the ledger. {go_on}")
        raise
    if before_leaving is not None:
        console.print(before_leaving(ledger), highlight=False)
    for problem in outcome.problems:
        console.print(f"problem: {problem}", highlight=False, soft_wrap=True)
    if outcome.signal is not None or outcome.lost is not None:
        why = "stopped" if outcome.lost is None else outcome.lost
        console.print(f"{why}. {go_on}", highlight=False, soft_wrap=True)
        raise typer.Exit(1 if outcome.signal is None else 128 + outcome.signal)
    return outcome

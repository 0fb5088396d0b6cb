"""The verbs of ``research``. What each needs is imported when it runs: ``--help`` waits for nothing."""

from __future__ import annotations

import json
import os
import sys
import traceback
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from research import cli_cluster, cli_models, cli_results, cli_study, cli_wandb
from research.cli_options import AsJson, DataDir  # noqa: TC001 - typer reads them when a verb is made
from research.data_copy import data_address, data_directory
from research.errors import FILES, UserError
from research.redaction import redacted
from research.storage import local, place

if TYPE_CHECKING:
    from rich.console import Console

    from vae.train_config import TrainConfig

app = typer.Typer(
    help="Sweeps over variational autoencoders that can be compared, resumed and reproduced.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Directory = Annotated[
    Path,
    typer.Argument(help="A sweep's directory, or its address (s3://...).", parser=local, metavar="DIRECTORY"),
]


@app.command()
def sweep(
    space: Annotated[str, typer.Argument(help="A name in search_spaces/ or the path of your own file.")],
    trials: Annotated[int, typer.Option(min=1, help="How many configs to try.")] = 20,
    epochs: Annotated[int | None, typer.Option(min=1, help="Full budget of a trial. Default: the space's own.")] = None,
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
    ] = None,
    constraint: Annotated[
        list[str] | None,
        typer.Option(help="What a model must satisfy, e.g. 'val/active_units>=5'; others rank below. Repeatable."),
    ] = None,
    data: Annotated[str | None, typer.Option(help="Another data set than the space's own, e.g. digits.")] = None,
    keep: Annotated[int, typer.Option(min=1, help="How many of the sweep's best models to keep.")] = 3,
    data_dir: DataDir = None,
    name: Annotated[str | None, typer.Option(help="The sweep's name. Default: the space's, with the time.")] = None,
    storage: Annotated[
        Path,
        typer.Option(
            help="The sweep lives in STORAGE/NAME: a folder, s3://BUCKET/... or gs://BUCKET/...",
            parser=place,
            metavar="PATH",
        ),
    ] = Path("sweeps"),
    cpus_per_trial: Annotated[
        float | None, typer.Option(help="CPUs for each trial. Default: cores / concurrent.")
    ] = None,
    gpus_per_trial: Annotated[
        str,
        typer.Option(
            help="1, or a share: 0.25 puts four trials on each GPU; auto measures how many fit. 0: on the CPU."
        ),
    ] = "0",
    concurrent: Annotated[int | None, typer.Option(min=1, help="Trials at a time. Default: as many as fit.")] = None,
    address: Annotated[str | None, typer.Option(help="An existing Ray cluster. Default: a Ray of its own.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="The sweep's seed: all else follows from it.")] = 0,
    deterministic: Annotated[
        bool,
        typer.Option(help="Make the sweep a function of seed and slots: trials wait for those before them."),
    ] = False,
    sampler: Annotated[
        str, typer.Option(help="tpe, random, grid, quasi-random, nsga2, or an Optuna sampler by its class name.")
    ] = "tpe",
    sampler_option: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE for the sampler, e.g. startup_trials=20. Repeatable.")
    ] = None,
    scheduler: Annotated[str, typer.Option(help="Early stopping: asha, hyperband, median or none.")] = "asha",
    grace: Annotated[
        int | None, typer.Option(min=1, help="The first epoch at which a trial may stop. Default: past any warm-up.")
    ] = None,
    reduction: Annotated[
        int, typer.Option(min=2, help="ASHA and HyperBand keep the best 1/REDUCTION at each rung.")
    ] = 3,
    min_population: Annotated[
        int | None,
        typer.Option(
            min=2, help="Nobody is judged at a rung before so many trials have been there. Default: 3; median 5."
        ),
    ] = None,
    hours: Annotated[
        float | None, typer.Option(help="Stop after so many hours of wall clock; running trials can be resumed.")
    ] = None,
    trial_hours: Annotated[
        float | None, typer.Option(help="Start no more trials after so many hours of training, all trials together.")
    ] = None,
    total_epochs: Annotated[int | None, typer.Option(help="Start no more trials after so many epochs in all.")] = None,
    patience: Annotated[
        int | None, typer.Option(help="Start no more trials after so many without a better one.")
    ] = None,
    max_failed: Annotated[
        int, typer.Option(min=1, help="Start no more trials after so many in a row have failed.")
    ] = 10,
    stuck_minutes: Annotated[
        float,
        typer.Option(
            min=0.0,
            help="A trial that reports no epoch for so long, and ten times as long as the slowest epoch took, is ended "
            "and run again once. 0: never.",
        ),
    ] = 120.0,
    replicates: Annotated[
        int, typer.Option(min=1, help="Seeds of each config: a row is their mean, early stopping judges the mean.")
    ] = 1,
    stack: Annotated[
        int,
        typer.Option(
            min=1, help="Train so many trials as one batched model, where shapes allow it; for GPUs above all."
        ),
    ] = 1,
    start_from: Annotated[
        list[str] | None,
        typer.Option(
            help="Configs to try first: a sweep's best, a record, a model, or JSON of parameters. Repeatable."
        ),
    ] = None,
    learn_from: Annotated[
        list[Path] | None,
        typer.Option(
            help="A sweep whose finished trials the sampler learns from. Repeatable.",
            parser=local,
            metavar="DIRECTORY",
        ),
    ] = None,
    wandb: Annotated[
        str | None,
        typer.Option(help="offline, online or disabled. Default: online when logged in, else offline."),
    ] = None,
    wandb_project: Annotated[str, typer.Option(help="The W&B project.")] = "vae-research",
    elsewhere: Annotated[bool, typer.Option(hidden=True)] = False,
) -> None:
    """Search a space: many trials, the best models kept, every number in the ledger."""
    from research import growth, preflight, settings  # noqa: PLC0415
    from research.free_space import check_free_space, check_temporary  # noqa: PLC0415
    from research.metrics import parse_constraint, parse_metric  # noqa: PLC0415
    from research.options import budget_of, sampler_of, scheduler_of  # noqa: PLC0415
    from research.resources import NO_GPU, automatic_share, gpu_share, local_gpus, resources_of  # noqa: PLC0415
    from research.samplers import rehearse  # noqa: PLC0415
    from research.show import relative  # noqa: PLC0415
    from research.spaces import load_space  # noqa: PLC0415
    from research.tracking import default_mode  # noqa: PLC0415

    loaded = load_space(space)
    stem = Path(space).stem
    sweep_dir = preflight.check_place(storage, f"{stem}-{datetime.now(UTC):%Y%m%d-%H%M%S}" if name is None else name)
    asked_for = tuple(parse_metric(text) for text in metric or [])
    if stop_by is not None and len(asked_for) < 2:  # noqa: PLR2004 - a front has two
        raise UserError(f"--stop-by {stop_by!r} is for two or more --metric; one is stopped by itself")
    objectives = asked_for if len(asked_for) > 1 else ()
    scalar = parse_metric(stop_by) if stop_by is not None else None if objectives or not asked_for else asked_for[0]
    constraints = tuple(parse_constraint(text) for text in constraint or [])
    if constraints and scheduler != "none":
        raise UserError(
            "--constraint needs --scheduler none: early stopping looks at the metric alone and would end the trials that "
            "satisfy the constraint first"
        )
    if stack > 1 and replicates > 1:
        raise UserError(
            f"--stack {stack} is for trials of one seed, got --replicates {replicates}; leave one of them out"
        )
    chosen_sampler = sampler_of(sampler, sampler_option or [])
    stopping = scheduler_of(scheduler, reduction=reduction, min_population=min_population)
    budget = budget_of(hours=hours, trial_hours=trial_hours, total_epochs=total_epochs, patience=patience)
    firsts = [start for source in start_from or [] for start in growth.start_from(source)]
    directory = _data_directory(data_dir)
    if address is not None and not elsewhere:
        preflight.check_address(address)
    asked: dict[str, Any] = {"concurrent": concurrent, "cpus_per_trial": cpus_per_trial, "address": address}
    share = gpu_share(gpus_per_trial)
    # Of auto the rest is known here already: what is refused whatever the share is refused now.
    resources = resources_of(**asked, gpus_per_trial=1.0 if share is None else share)
    if elsewhere:  # research submit asks what can be asked without the cluster's data and machines
        drawn, _ = preflight.check_draws(
            loaded, metric=scalar, epochs=epochs, seed=seed, data=data, constraints=constraints, objectives=objectives
        )
        preflight.resolve_scheduler(stopping, drawn.configs, grace=grace)
        return
    if share is None and local_gpus() == 0:
        raise UserError(f"--gpus-per-trial auto measures on a GPU of this machine, and {NO_GPU}")
    found = preflight.check_space(
        loaded,
        metric=scalar,
        epochs=epochs,
        seed=seed,
        data_dir=directory,
        data=data,
        constraints=constraints,
        objectives=objectives,
    )
    if share is None:
        share, why = automatic_share(
            loaded,
            found.data,
            gpus=local_gpus() if address is None else 1,
            at_once=concurrent or preflight.available_cpus(),
            epochs=epochs,
            seed=seed,
            data_set=data,
            data_dir=directory,
            replicates=replicates,
            metric=found.metric.name,
        )
        _console().print(why, highlight=False, soft_wrap=True)
        resources = resources_of(**asked, gpus_per_trial=share)
    chosen = settings.SweepSettings(
        name=sweep_dir.name,
        space=loaded.source,
        metric=found.metric,
        objectives=objectives,
        constraints=constraints,
        data=data,
        trials=trials,
        epochs=epochs,
        keep=keep,
        seed=seed,
        sampler=chosen_sampler,
        scheduler=preflight.resolve_scheduler(stopping, found.survey.configs, grace=grace),
        budget=budget,
        start_from=tuple(firsts),
        replicates=replicates,
        stack=stack,
        deterministic=deterministic,
        resources=resources,
        max_failed=max_failed,
        stuck_minutes=stuck_minutes,
        measure=found.measure,
        data_hash=found.data.data_hash,
        split_hash=found.data.split_hash,
        data_dir=data_address(directory),
        wandb=_one_of("--wandb", wandb or default_mode(), {mode: mode for mode in ("offline", "online", "disabled")}),
        wandb_project=wandb_project,
    )
    if address is None:
        check_temporary()
    check_free_space(
        storage,
        found.survey.configs,
        found.data,
        concurrent=resources.concurrent,
        replicates=replicates,
        keep=min(keep, trials),
    )
    budgets = {config.epochs for config in found.survey.configs}
    learned = [growth.learn_from(source, chosen, budgets) for source in learn_from or []]
    rehearse(loaded, chosen, [trial for event in learned for trial in event.trials])
    from research.sweep import check_cluster, create, reopen  # noqa: PLC0415 - Ray takes seconds to import: after the checks

    check_cluster(address, resources)

    console = _console()
    if objectives:
        ranking = f"front of {', '.join(o.name for o in objectives)}, stopped by {found.metric.name}"
    else:
        ranking = f"ranked by {found.metric.name} ({found.metric.direction})"
    console.print(
        f"sweep {relative(sweep_dir)}: {trials} trials of space {space}, {ranking}, "
        f"{resources.concurrent} at a time on {resources.threads} thread{'s' if resources.threads > 1 else ''} each",
        highlight=False,
        soft_wrap=True,
    )
    create(sweep_dir, chosen, sys.argv, learned)
    _drive(*reopen(sweep_dir, allow_changed_code=False), console, address)


@app.command()
def resume(
    directory: Directory,
    address: Annotated[str | None, typer.Option(help="An existing Ray cluster. Default: a Ray of its own.")] = None,
    allow_changed_code: Annotated[
        bool, typer.Option(help="Go on although the code is not what the sweep was begun with.")
    ] = False,
) -> None:
    """Continue a sweep that was stopped or killed, from its ledger. Nothing that ended runs again."""
    if address is not None:
        from research.preflight import check_address  # noqa: PLC0415

        check_address(address)
    from research.sweep import check_cluster, reopen  # noqa: PLC0415

    ledger, space = reopen(directory, allow_changed_code=allow_changed_code)
    check_cluster(address, ledger.settings.resources)
    _drive(ledger, space, _console(), address)


@app.command()
def extend(
    directory: Directory,
    trials: Annotated[str | None, typer.Option(help="+N more trials, or a new total.")] = None,
    space: Annotated[str | None, typer.Option(help="Draw from another space from here on, e.g. a wider one.")] = None,
    hours: Annotated[str | None, typer.Option(help="+HOURS of wall clock, or a new limit.")] = None,
    trial_hours: Annotated[str | None, typer.Option(help="+HOURS of training, or a new limit.")] = None,
    total_epochs: Annotated[str | None, typer.Option(help="+N epochs, or a new limit.")] = None,
    patience: Annotated[str | None, typer.Option(help="+N trials without a better one, or a new limit.")] = None,
    address: Annotated[str | None, typer.Option(help="An existing Ray cluster. Default: a Ray of its own.")] = None,
    allow_changed_code: Annotated[
        bool, typer.Option(help="Go on although the code is not what the sweep was begun with.")
    ] = False,
) -> None:
    """Give a sweep more to do and go on: its sampler knows all that was tried."""
    from research.budget import More  # noqa: PLC0415
    from research.growth import extend as write_down  # noqa: PLC0415

    if address is not None:
        from research.preflight import check_address  # noqa: PLC0415

        check_address(address)
    from research.ledger import Ledger  # noqa: PLC0415
    from research.show import relative  # noqa: PLC0415
    from research.sweep import check_cluster, check_code, reopen  # noqa: PLC0415

    ledger = Ledger.open(directory)
    check_code(ledger, allow_changed_code=allow_changed_code)
    check_cluster(address, ledger.settings.resources)
    more = More(hours=hours, trial_hours=trial_hours, total_epochs=total_epochs, patience=patience)
    event = write_down(ledger, trials=trials, space=space, more=more)

    console = _console()
    console.print(f"sweep {relative(directory)}: {event.trials} trials in all", highlight=False, soft_wrap=True)
    _drive(*reopen(directory, allow_changed_code=allow_changed_code), console, address)


@app.command()
def finalists(
    directory: Directory,
    top: Annotated[int, typer.Option(min=1, help="How many of the best configs.")] = 5,
    seeds: Annotated[int, typer.Option(min=2, help="How many fresh seeds of each.")] = 5,
    nll: Annotated[
        int, typer.Option(min=0, max=5000, help="Importance samples for -log p(x) on test; 0: the bound alone.")
    ] = 500,
    images: Annotated[int, typer.Option(min=1, help="For --nll: the first so many examples.")] = 1000,
    test: Annotated[bool, typer.Option(help="Look at the test split, once for each seed of the chosen config.")] = True,
    concurrent: Annotated[int | None, typer.Option(min=1, help="Trials at a time. Default: the sweep's.")] = None,
    data_dir: DataDir = None,
    address: Annotated[str | None, typer.Option(help="An existing Ray cluster. Default: a Ray of its own.")] = None,
    allow_changed_code: Annotated[
        bool, typer.Option(help="Go on although the code is not what the sweep was begun with.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Train a sweep's best configs again with fresh seeds, at full budget: how sure is its answer?"""
    if address is not None:
        from research.preflight import check_address  # noqa: PLC0415

        check_address(address)
    from research import finalists as again  # noqa: PLC0415
    from research.ledger import Ledger  # noqa: PLC0415
    from research.resources import resources_of  # noqa: PLC0415
    from research.sweep import RAY, check_cluster, check_code, reopen  # noqa: PLC0415

    ledger = Ledger.open(directory)
    check_code(ledger, allow_changed_code=allow_changed_code)
    resources = None
    if concurrent is not None:
        share = ledger.settings.resources.gpus_per_trial
        resources = resources_of(concurrent=concurrent, cpus_per_trial=None, gpus_per_trial=share, address=address)
    check_cluster(address, resources or ledger.settings.resources)
    place = again.prepare(ledger, top=top, seeds=seeds, resources=resources, command=sys.argv)
    console = _console(quiet=as_json)
    if (place / RAY).exists() or any(not view.terminal for view in Ledger.open(place).trials.values()):
        console.print(f"finalists {place}: the best {top} configs, {seeds} fresh seeds of each", highlight=False)
        _run(*reopen(place, allow_changed_code=allow_changed_code), console, address)
    found = again.results(ledger)
    assert found is not None, "they were trained above"
    if found["configurations"][0]["mean"] is None:
        raise UserError(f"no finalist gave a result: research show {place} has the reasons")
    if test:
        _set_threads(1)
        chosen_data = _data_directory(data_dir) or data_directory(ledger.settings.data_dir)
        found["test"] = again.look_at_test(found, nll_k=nll, images=images, data_dir=chosen_data, device="cpu")
    if as_json:
        typer.echo(json.dumps(found, indent=1))
    console.print(again.table(found), highlight=False)


@app.command()
def show(
    directory: Directory,
    as_json: AsJson = False,
    rows: Annotated[int, typer.Option(min=1, help="How many of the best to list.")] = 10,
) -> None:
    """A sweep at a glance: states, the best configs, where their models are."""
    from research.ledger import Ledger  # noqa: PLC0415
    from research.show import as_json as sweep_json  # noqa: PLC0415
    from research.show import glance  # noqa: PLC0415

    ledger = Ledger.open(directory)
    if as_json:
        typer.echo(json.dumps(sweep_json(ledger), indent=1))
    else:
        _console().print(glance(ledger, rows=rows), highlight=False)


@app.command()
def train(
    config: Annotated[str, typer.Argument(help="A config.json, a record.json, a model folder, or a space.")],
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Change a setting: objective.beta=4. Repeatable.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Where the model goes. Default: runs/ and the time.")] = None,
    data_dir: DataDir = None,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads; 1 gives what a sweep's trial on one gives.")] = 1,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    seed: Annotated[int | None, typer.Option(min=0, help="The same as --set seed=N; draws from a space, too.")] = None,
) -> None:
    """One training run without Ray. From a space, one config is drawn at random."""
    _set_threads(threads)
    from research.single import train_once  # noqa: PLC0415
    from vae.serialization import to_json, with_values  # noqa: PLC0415

    changes = dict(_assignment(text) for text in set_ or [])
    if seed is not None:
        changes["seed"] = seed
    chosen = with_values(_config_of(config, seed or 0), changes)
    _check_device(device)
    console = _console()
    if Path(config).suffix != ".json" and not Path(config).is_dir():
        console.print(f"drawn: {to_json(chosen)}", highlight=False, soft_wrap=True)
    folder = out or Path("runs") / f"{datetime.now(UTC):%Y%m%d-%H%M%S}"
    run = train_once(
        chosen,
        source=config,
        out=folder,
        data_dir=_data_directory(data_dir),
        threads=threads,
        device=device,
        on_row=lambda row: console.print(_row_line(row, chosen.epochs), highlight=False, soft_wrap=True),
    )
    if run.diverged is not None:
        console.print(f"diverged: {run.diverged}", highlight=False, soft_wrap=True)
        raise typer.Exit(1)
    console.print(f"model of epoch {run.kept_epoch} in {folder}", highlight=False, soft_wrap=True)


@app.command()
def reproduce(
    record: Annotated[
        Path,
        typer.Argument(help="A record.json, a model folder, or a sweep's directory.", parser=local, metavar="RECORD"),
    ],
    rank: Annotated[int, typer.Option(min=1, help="Of a sweep: which of its best.")] = 1,
    data_dir: DataDir = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda. Default: the record's.")] = None,
    stacked: Annotated[
        bool, typer.Option("--stacked", help="Repeat the whole stack that the trial trained in, not the trial alone.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Train a recorded config again and compare, row by row.

    Exit code 0: reproduced exactly. 3: within tolerance. 4: did not reproduce.
    """
    from research.records import load_record  # noqa: PLC0415

    kept = load_record(record, rank)
    _set_threads(kept.threads or 1)
    from research.reproduce import EXIT_CODES  # noqa: PLC0415
    from research.reproduce import reproduce as run_again  # noqa: PLC0415

    place = device or kept.device or "cpu"
    _check_device(place)
    console = _console(quiet=as_json)
    epochs = len(kept.rows)
    console.print(
        f"training trial {kept.trial} of {kept.sweep or 'a single run'} again: {epochs} epochs, seed {kept.seed}, "
        f"config {kept.config_hash[:12]}",
        highlight=False,
        soft_wrap=True,
    )
    directory = _data_directory(data_dir) or data_directory(kept.data_dir)
    result = run_again(
        kept,
        data_dir=directory,
        device=place,
        stacked=stacked,
        on_row=lambda row: console.print(_row_line(row, epochs), highlight=False, soft_wrap=True),
    )
    if as_json:
        typer.echo(
            json.dumps(
                {
                    "verdict": result.verdict,
                    "rows": result.rows,
                    "surroundings": result.surroundings,
                    "differences": [vars(d) for d in result.differences],
                }
            )
        )
    for difference in result.differences:
        console.print(
            f"  {difference.metric}: recorded {difference.recorded}, again {difference.again} (epoch {difference.epoch})",
            highlight=False,
        )
    for line in result.surroundings:
        console.print(f"  differs: {line}", highlight=False)
    console.print(f"{result.verdict} ({result.rows} of {epochs} rows compared)", highlight=False)
    raise typer.Exit(EXIT_CODES[result.verdict])


@app.command()
def evaluate(
    model: Annotated[Path, typer.Argument(help="A model folder.", parser=local, metavar="MODEL")],
    split: Annotated[str, typer.Option(help="validation or test. Every look at test is written down.")] = "validation",
    nll: Annotated[
        int, typer.Option(min=0, max=5000, help="Importance samples for -log p(x); 0: the bound alone.")
    ] = 0,
    images: Annotated[int, typer.Option(min=1, help="For --nll: the first so many examples.")] = 1000,
    data: Annotated[str | None, typer.Option(help="Another data set of the same shape, e.g. fashion_mnist.")] = None,
    data_dir: DataDir = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 1,
    why: Annotated[str, typer.Option(help="Written down with a look at test.")] = "research evaluate",
    as_json: AsJson = False,
) -> None:
    """A model's numbers on held-out data, in nats per example."""
    _one_of("--split", split, {"validation": 1, "test": 1})
    _set_threads(threads)
    from research.evaluation import evaluate_model  # noqa: PLC0415

    _check_device(device)
    answer = evaluate_model(
        model,
        split=split,
        nll_k=nll,
        images=images,
        data=data,
        data_dir=_data_directory(data_dir),
        device=device,
        why=why,
    )
    if as_json:
        typer.echo(json.dumps(answer.row | {"stored": answer.stored}, indent=1))
        return
    console = _console()
    for name, value in answer.row.items():
        if isinstance(value, list):
            value = "  ".join(f"{item:.3f}" for item in sorted(value, reverse=True))  # noqa: PLW2901
        elif isinstance(value, float):
            value = f"{value:.4f}"  # noqa: PLW2901 - all digits are in --json
        console.print(f"{name:38} {value}", highlight=False, soft_wrap=True)
    if split == "test":
        told = (
            "this question was asked before: the stored row" if answer.stored else "this look at test was written down"
        )
        console.print(told, highlight=False)


for _verb in (*cli_models.VERBS, *cli_results.VERBS, *cli_study.VERBS, *cli_wandb.VERBS, *cli_cluster.VERBS):
    app.command()(_verb)
app.command(context_settings=cli_cluster.PASSES_ON)(cli_cluster.submit)


def main() -> None:
    """The entry point: a person's mistake is one line and exit code 2."""
    try:
        code = app(standalone_mode=False)
    except typer.Abort:
        sys.exit(130)
    except Exception as error:  # noqa: BLE001 - shown as Python would show it
        # Loaded by now if that is what was raised: no import is paid for on the way to an error.
        known = [getattr(sys.modules.get(m), n, None) for m, n in _USER_ERRORS]
        if isinstance(error, UserError) or any(kind is not None and isinstance(error, kind) for kind in known):
            _fail(str(error))
        if isinstance(error, OSError) and error.filename is not None and error.errno in FILES:
            _fail(f"{str(error.filename)[:500]} can't be used: {error.strerror}")
        if isinstance(error, _UsageError):
            _fail(error.format_message() + _value_given(error))
        sys.stderr.write(redacted(traceback.format_exc()))  # a bug's: as Python prints it, without secrets
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)


# Typer carries its own click and exports one of its usage errors: the class above that one is all of them.
_UsageError: Any = typer.BadParameter.__base__
_USER_ERRORS = (
    ("vae.config", "ConfigError"),
    ("vae.data.dataset", "DataError"),
    ("vae.state", "StateError"),
)


LONGEST_LINE = 1500  # letters: a value that fills pages is not repeated whole


def _value_given(error: Any) -> str:  # noqa: ANN401 - typer's own click is private
    """`` (got '0')`` for an option whose value typer refuses without naming it."""
    names = getattr(getattr(error, "param", None), "opts", [])
    given = [value for name, value in pairwise(sys.argv) if name in names]
    return f" (got {given[-1]!r})" if given else ""


def _fail(message: str) -> None:
    line = redacted(" ".join(message.split()))
    sys.stderr.write(f"error: {line if len(line) <= LONGEST_LINE else line[:LONGEST_LINE] + ' ...'}\n")
    sys.exit(2)


def _drive(ledger: Any, space: Any, console: Console, address: str | None) -> None:  # noqa: ANN401 - Ledger and Space, imported late
    """Run a session and say how it ended.

    Exit 0: all trials ended; 1: none gave a result, or too many in a row failed; 128 + signal: stopped.
    """
    from research.failures import summary  # noqa: PLC0415
    from research.show import glance, relative  # noqa: PLC0415

    outcome = _run(ledger, space, console, address, before_leaving=glance)
    if outcome.budget is not None:
        option = outcome.budget.split()[0]
        console.print(
            f"{outcome.budget}: nothing more was started. research extend {relative(ledger.directory)} {option} +N goes on",
            highlight=False,
            soft_wrap=True,
        )
    if outcome.failing is not None:
        console.print(
            f"{outcome.failing}: nothing more was started. When that is mended: research resume {relative(ledger.directory)}",
            highlight=False,
            soft_wrap=True,
        )
    if (failed := summary(ledger)) is not None:
        console.print(failed, highlight=False, soft_wrap=True)
    if not ledger.ranked():
        console.print("no trial gave a result; all reasons: research show --json", highlight=False)
    if not ledger.ranked() or outcome.failing is not None:
        raise typer.Exit(1)


def _run(ledger: Any, space: Any, console: Console, address: str | None, before_leaving: Any = None) -> Any:  # noqa: ANN401 - Ledger, Space, a page and Outcome, imported late
    """Run a session; ``before_leaving`` is printed after it. Exit 128 + signal: stopped."""
    from research.live import LiveView  # noqa: PLC0415
    from research.show import relative  # noqa: PLC0415
    from research.sweep import run  # noqa: PLC0415

    go_on = f"Continue with: research resume {relative(ledger.directory)}"
    try:
        outcome = run(ledger, space, LiveView(console, ledger), address=address)
    except Exception as error:
        if not isinstance(error, UserError):
            sys.stderr.write(f"the driver failed, what was done is in the ledger. {go_on}\n")
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


def _console(*, quiet: bool = False, stderr: bool = False) -> Console:
    from rich.console import Console  # noqa: PLC0415

    # A pipe has no width: tables must not be folded to 80 columns there.
    width = None if (sys.stderr if stderr else sys.stdout).isatty() else 160
    return Console(quiet=quiet, width=width, stderr=stderr)


def _set_threads(threads: int) -> None:
    """Before torch is imported: its pools take their size from here."""
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(threads)
    import torch  # noqa: PLC0415

    torch.set_num_threads(threads)


def _data_directory(data_dir: Path | None) -> Path | None:
    return data_dir or data_directory(os.environ.get("RESEARCH_DATA_DIR") or None)


def _check_device(device: str) -> None:
    import torch  # noqa: PLC0415

    if device.partition(":")[0] not in {"cpu", "cuda"}:
        raise UserError(f"--device must be cpu or cuda, got {device!r}")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(f"--device {device!r} needs a GPU that torch can see, and there is none; use --device cpu")


def _one_of(option: str, value: str, choices: dict[str, Any]) -> Any:  # noqa: ANN401 - whatever the choice stands for
    if value not in choices:
        raise UserError(f"{option} must be one of {', '.join(choices)}, got {value!r}")
    return choices[value]


def _assignment(text: str) -> tuple[str, Any]:
    from research.options import named_value  # noqa: PLC0415

    if (found := named_value(text)) is None:
        raise UserError(f"--set must be PATH=VALUE, e.g. objective.beta=4, got {text!r}")
    return found


def _config_of(name: str, seed: int) -> TrainConfig:
    """The config that ``name`` means: of a JSON file, a record, a model folder, or drawn from a space."""
    from vae.serialization import from_json, from_record  # noqa: PLC0415

    path = local(name)
    if path.is_dir():
        path /= "config.json"
    if path.suffix == ".json":
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"config {name!r} can't be read: {error}") from None
        if '"config_hash"' in text:
            from research.records import TrialRecord  # noqa: PLC0415

            return from_record(TrialRecord.from_json(text, name).config)
        return from_json(text)
    from research.spaces import load_space, survey  # noqa: PLC0415

    return survey(load_space(name), epochs=None, seed=seed, draws=1).configs[0]


def _row_line(row: dict[str, Any], epochs: int) -> str:
    names = ("train/loss", "val/elbo", "val/reconstruction", "val/kl", "val/denoise_error")
    figures = "  ".join(f"{name} {row[name]:.3f}" for name in names if isinstance(row.get(name), float))
    return f"epoch {row['epoch']:>3}/{epochs}  {figures}  {row['time/examples_per_second']:,.0f} examples/s"


if __name__ == "__main__":
    main()

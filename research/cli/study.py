"""The verbs around a sweep: what it would be, how it goes, and which parts of its result matter."""

from __future__ import annotations

import sys
from pathlib import Path  # noqa: TC003 - typer reads it when a verb is made
from typing import TYPE_CHECKING, Annotated

import typer

from research.cli.options import (
    AsJson,
    DataDir,
    Trust,
    check_device,
    check_trust,
    console_of,
    data_dir_of,
    later,
    one_of,
    set_threads,
)
from research.errors import UserError
from research.paths import whole
from research.store.data_copy import data_directory
from research.store.mirror import local, relative
from research.terminal import say
from research.text import json_text, shell

if TYPE_CHECKING:
    from rich.console import Console


def plan(
    space: Annotated[str, typer.Argument(help="A name in search_spaces/ or the path of your own file.")],
    *,
    draws: Annotated[int, typer.Option(min=1, max=10_000, help="How many configs to draw.")] = 200,
    trials: Annotated[int, typer.Option(min=1, help="Of the sweep that is planned.")] = 20,
    epochs: Annotated[int | None, typer.Option(min=1, help="Full budget of a trial. Default: the space's own.")] = None,
    concurrent: Annotated[
        int | None, typer.Option("--concurrent", "--slots", min=1, help="Trials at a time. Default: the cores here.")
    ] = None,
    hours: Annotated[float | None, typer.Option(help="Also estimate how many trials fit into this many hours.")] = None,
    data: Annotated[str | None, typer.Option(help="Another data set than the space's own, e.g. digits.")] = None,
    data_dir: DataDir = None,
    seed: Annotated[int, typer.Option(min=0, help="The sweep's seed: the draws follow from it.")] = 0,
    probe: Annotated[bool, typer.Option(help="Time a few configs for about 20 seconds.")] = True,
    device: Annotated[str, typer.Option(help="cpu or cuda: what the probe trains on.")] = "cpu",
    as_json: AsJson = False,
) -> None:
    """Describe a sweep before it runs: parameters, impossible draws, model sizes, time. Nothing is kept."""
    from research.planning.preflight import available_cpus  # noqa: PLC0415

    if hours is not None and hours <= 0:
        raise UserError(f"--hours must be > 0, got {hours:g}")
    if hours is not None and not probe:
        raise UserError("--hours needs the probe: without a measured time no trials can be counted; drop --no-probe")
    slots = concurrent or available_cpus()
    threads = max(1, available_cpus() // slots)  # what a trial of the sweep would have
    set_threads(threads)
    check_device(device)
    from research.planning.plan import make_plan  # noqa: PLC0415
    from research.search.spaces import load_space  # noqa: PLC0415

    found = make_plan(
        load_space(space),
        draws=draws,
        trials=trials,
        epochs=epochs,
        slots=slots,
        threads=threads,
        hours=hours,
        data=data,
        data_dir=data_dir_of(data_dir),
        seed=seed,
        probe=probe,
        device=device,
    )
    if as_json:
        say(json_text(found))
        return
    from research.planning.plan_text import plan_text  # noqa: PLC0415

    console_of().print(plan_text(found), highlight=False)


def watch(
    place: Annotated[
        str,
        typer.Argument(
            help="The directory of a sweep that runs elsewhere, or its address (s3://...); or a cluster and then its NAME."
        ),
    ],
    name: Annotated[str | None, typer.Argument(help="Of a sweep that was submitted to a cluster.")] = None,
    *,
    once: Annotated[bool, typer.Option("--once", help="Print how it stands now, and leave.")] = False,
) -> None:
    """Follow a sweep that another process drives; it is only read. Ctrl-C leaves the sweep as it is.

    Exit code 0: all trials have ended. 1: it was stopped, or has no driver. 130: you left.
    """
    from research.clusters.access import check_cluster, is_cluster  # noqa: PLC0415

    if name is not None or is_cluster(place):
        from research.cli.cluster import follow_remote  # noqa: PLC0415

        if name is None or once:
            raise UserError(f"on a cluster: {shell('research', 'watch', place)} NAME, and no --once")
        check_cluster(place)
        raise typer.Exit(follow_remote(place, name))
    from research.ledger.log import Ledger  # noqa: PLC0415
    from research.views.show import glance, states_shown  # noqa: PLC0415
    from research.views.watch import Follower, ending_line  # noqa: PLC0415
    from research.views.watch import watch as follow  # noqa: PLC0415

    console = console_of()
    directory = local(place)
    ledger = Ledger.open(directory)
    if once:
        follower = Follower(ledger, console)
        console.print(follower.view.frame(), highlight=False)
        how = follower.ending() or ("gone" if follower.driver() is None else None)
        if how is not None:
            _say(console, ending_line(ledger, how))
        return
    try:
        if not console.is_terminal:
            told = ", ".join(f"{count} {state}" for state, count in states_shown(ledger).items())
            _say(console, f"sweep {ledger.settings.name}: {told} of {ledger.settings.trials} trials so far")
            sys.stdout.flush()  # a pipe is read by somebody who waits
        how = follow(ledger, console)
    except KeyboardInterrupt:
        again = shell("research", "watch", relative(directory))
        _say(console, f"left; the sweep is as it was. Follow it again with: {again}")
        raise typer.Exit(130) from None
    console.print(glance(ledger), highlight=False)
    _say(console, ending_line(ledger, how))
    raise typer.Exit(0 if how == "ended" else 1)


def ablate(
    record: Annotated[
        Path,
        typer.Argument(
            help="A sweep, a trial of it (DIR:7), a record.json, a model folder, or a config.json.",
            parser=later(local),
            metavar="PLACE",
        ),
    ],
    *,
    change: Annotated[
        list[str] | None,
        typer.Option(
            help="One row: objective.beta=1, or several settings with ';' between. Repeatable. "
            "Default: each part that is not at its plainest, put back to that."
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each row, all rows with the same seeds.")] = 5,
    epochs: Annotated[int | None, typer.Option(min=1, help="Of each run. Default: the config's.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Where the runs are kept. Default: ablations/ and the config's hash.", parser=whole, metavar="PATH"
        ),
    ] = None,
    table: Annotated[str, typer.Option("--format", help="markdown, latex or csv.")] = "markdown",
    rank: Annotated[int, typer.Option(min=1, help="Of a sweep: which of its best.")] = 1,
    data_dir: DataDir = None,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 1,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    trust: Trust = False,
) -> None:
    """Change one thing at a time, train each with the same seeds, and tabulate what it costs. Continues where it was."""
    formats = {name: name for name in ("markdown", "latex", "csv")}
    one_of("--format", table, formats)
    named_data = data_dir_of(data_dir)
    check_trust(record, contact=named_data is None, trust=trust)
    set_threads(threads)
    check_device(device)
    from research.experiments import ablation, variants  # noqa: PLC0415
    from vae.serialization import config_hash, with_values  # noqa: PLC0415

    subject = variants.read_subject(record, rank)
    config = subject.config if epochs is None else with_values(subject.config, {"epochs": epochs})
    # Progress goes beside the table, so that the table alone can be piped into a file.
    console = console_of(stderr=True)
    if change:
        rows = variants.given_variants(config, change)
    else:
        rows, left_out = variants.default_variants(config)
        for line in left_out:
            _say(console, f"left out: {line}")
    prepared = ablation.prepare(
        rows,
        config=config,
        metric=subject.metric,
        seeds=seeds,
        out=out or whole("ablations") / config_hash(config)[:12],
        data_dir=named_data or data_directory(subject.data_dir),
        data_hash=subject.data_hash,
    )
    total = len(prepared.variants) * seeds
    _say(
        console,
        f"{len(prepared.variants)} rows × {seeds} seeds of {config.epochs} epochs in {relative(prepared.out)}, by {prepared.metric.name}",
    )
    ended = 0

    def told(label: str, seed: int, result: ablation.RunResult, new: bool) -> None:
        nonlocal ended
        ended += 1
        value = None if result.row is None else result.row.get(prepared.metric.name)
        figure = f"{prepared.metric.name} {value:.3f}" if isinstance(value, float) else "trained"
        how = f"failed: {result.failed}" if result.failed is not None else figure
        _say(console, f"{ended}/{total}  {label}  seed {seed}  {how}{'' if new else '  (was there)'}")

    try:
        results = ablation.run_all(prepared, threads=threads, device=device, on_run=told)
    except KeyboardInterrupt:
        _say(console, f"stopped after {ended} of {total} runs; the same command continues in {relative(prepared.out)}")
        raise typer.Exit(130) from None
    from research.experiments.ablation_table import FORMATS, summarise  # noqa: PLC0415

    say(FORMATS[table](prepared, summarise(prepared, results)), end="")


VERBS = (plan, watch, ablate)


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, soft_wrap=True)

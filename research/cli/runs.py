"""The verbs of a single run, and the page of a sweep. What each needs is imported when it runs: ``--help`` waits for nothing."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Any

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
    warn_of_lost_events,
)
from research.cli.sweeps import Directory  # noqa: TC001 - typer reads it when a verb is made
from research.errors import UserError
from research.paths import whole
from research.store.data_copy import data_directory
from research.store.layout import CONFIG, SweepFolder
from research.store.mirror import local, relative
from research.store.object_store import is_url
from research.terminal import say
from research.text import json_text

if TYPE_CHECKING:
    from vae.train_config import TrainConfig


def show(
    directory: Directory,
    as_json: AsJson = False,
    rows: Annotated[int, typer.Option(min=1, help="How many of the best to list.")] = 10,
) -> None:
    """A sweep at a glance: states, the best configs, where their models are."""
    from research.ledger.log import Ledger  # noqa: PLC0415
    from research.views.show import as_json as sweep_json  # noqa: PLC0415
    from research.views.show import glance  # noqa: PLC0415

    ledger = Ledger.open(directory)
    warn_of_lost_events(ledger)
    if as_json:
        say(json_text(sweep_json(ledger)))
    else:
        console_of().print(glance(ledger, rows=rows), highlight=False)


def train(
    config: Annotated[
        str,
        typer.Argument(
            help="A config.json, a sweep, a trial of it (DIR:7), a record.json, a model folder, or a space."
        ),
    ],
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Change a setting: objective.beta=4. Repeatable.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Where the model goes. Default: runs/ and the time.", parser=whole, metavar="PATH"),
    ] = None,
    data_dir: DataDir = None,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads; 1 gives what a sweep's trial on one gives.")] = 1,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    seed: Annotated[int | None, typer.Option(min=0, help="The same as --set seed=N; draws from a space, too.")] = None,
    trust: Trust = False,
) -> None:
    """One training run without Ray. From a space, one config is drawn at random."""
    check_trust(local(config), contact=False, trust=trust)
    set_threads(threads)
    from research.experiments.single import train_once  # noqa: PLC0415
    from research.search.no_secrets import refuse_in  # noqa: PLC0415
    from research.views.doubts import doubts  # noqa: PLC0415
    from vae.serialization import to_dict, to_json, with_values  # noqa: PLC0415

    changes = dict(_assignment(text) for text in set_ or [])
    if seed is not None:
        changes["seed"] = seed
    chosen = with_values(_config_of(config, seed or 0), changes)
    check_device(device)
    refuse_in("the config", to_dict(chosen))
    console = console_of()
    if not _is_recorded(config):
        console.print(f"drawn: {to_json(chosen)}", highlight=False, soft_wrap=True)
    folder = out or whole("runs") / f"{datetime.now(UTC):%Y%m%d-%H%M%S}"
    run = train_once(
        chosen,
        source=config,
        out=folder,
        data_dir=data_dir_of(data_dir),
        threads=threads,
        device=device,
        on_row=lambda row: console.print(_row_line(row, chosen.epochs), highlight=False, soft_wrap=True),
        on_note=lambda line: console.print(f"note: {line}", highlight=False, soft_wrap=True, markup=False),
    )
    if run.diverged is not None:
        console.print(f"diverged: {run.diverged}", highlight=False, soft_wrap=True)
        raise typer.Exit(1)
    for doubt in doubts(run.kept_row or {}, str((run.kept_row or {}).get("measure", "")), to_dict(chosen)):
        console.print(f"warning: the model is {doubt}", highlight=False, soft_wrap=True, markup=False)
    console.print(f"model of epoch {run.kept_epoch} in {relative(folder)}", highlight=False, soft_wrap=True)


def reproduce(
    record: Annotated[
        Path,
        typer.Argument(
            help="A sweep, a trial of it (DIR:7), a record.json, or a model folder.",
            parser=later(local),
            metavar="RECORD",
        ),
    ],
    rank: Annotated[int, typer.Option(min=1, help="Of a sweep: which of its best.")] = 1,
    data_dir: DataDir = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda. Default: the record's.")] = None,
    stacked: Annotated[
        bool, typer.Option("--stacked", help="Repeat the whole stack that the trial trained in, not the trial alone.")
    ] = False,
    trust: Trust = False,
    as_json: AsJson = False,
) -> None:
    """Train a recorded config again and compare, row by row.

    Exit code 0: reproduced exactly. 3: within tolerance. 4: did not reproduce.
    """
    from research.ledger.consistency import check_record, rows_in_words  # noqa: PLC0415
    from research.ledger.records import load_record  # noqa: PLC0415

    kept = load_record(record, rank)
    named_data = data_dir_of(data_dir)
    check_trust(record, contact=named_data is None, trust=trust, stacked=stacked)
    check_record(kept)
    set_threads(kept.threads or 1)
    from research.experiments.reproduce import EXIT_CODES  # noqa: PLC0415
    from research.experiments.reproduce import reproduce as run_again  # noqa: PLC0415

    place = device or kept.device or "cpu"
    check_device(place)
    console = console_of(quiet=as_json)
    epochs = len(kept.rows)
    console.print(
        f"training trial {kept.trial} of {kept.sweep or 'a single run'} again: {rows_in_words(kept)}, seed {kept.seed}, "
        f"config {kept.config_hash[:12]}",
        highlight=False,
        soft_wrap=True,
    )
    directory = named_data or data_directory(kept.data_dir)
    result = run_again(
        kept,
        data_dir=directory,
        device=place,
        stacked=stacked,
        on_row=lambda row: console.print(_row_line(row, epochs), highlight=False, soft_wrap=True),
    )
    if as_json:
        found = {
            "verdict": result.verdict,
            "rows": result.rows,
            "surroundings": result.surroundings,
            "differences": [vars(difference) for difference in result.differences],
        }
        say(json_text(found, indent=None))
    for difference in result.differences:
        console.print(
            f"  {difference.metric}: recorded {difference.recorded}, again {difference.again} (epoch {difference.epoch})",
            highlight=False,
        )
    for line in result.surroundings:
        console.print(f"  differs: {line}", highlight=False)
    console.print(f"{result.verdict} ({result.rows} of {epochs} rows compared)", highlight=False)
    raise typer.Exit(EXIT_CODES[result.verdict])


def evaluate(
    model: Annotated[
        Path,
        typer.Argument(
            help="A sweep, a trial of it (DIR:7), a model folder, or a record in one.",
            parser=later(local),
            metavar="MODEL",
        ),
    ],
    rank: Annotated[int, typer.Option(min=1, help="Of a sweep: which of its best.")] = 1,
    split: Annotated[str, typer.Option(help="validation or test. Every look at test is written down.")] = "validation",
    nll: Annotated[
        int, typer.Option(min=0, max=5000, help="Importance samples for -log p(x); 0: the bound alone.")
    ] = 0,
    images: Annotated[int, typer.Option(min=1, help="For --nll: the number of examples.")] = 1000,
    data: Annotated[str | None, typer.Option(help="Another data set of the same shape, e.g. fashion_mnist.")] = None,
    data_dir: DataDir = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 1,
    why: Annotated[str, typer.Option(help="Written down with a look at test.")] = "research evaluate",
    as_json: AsJson = False,
) -> None:
    """A model's numbers on held-out data, in nats per example."""
    one_of("--split", split, {"validation": 1, "test": 1})
    set_threads(threads)
    from research.models.apply import model_folder  # noqa: PLC0415
    from research.models.evaluation import evaluate_model  # noqa: PLC0415

    check_device(device)
    answer = evaluate_model(
        model_folder(model, rank),
        split=split,
        nll_k=nll,
        images=images,
        data=data,
        data_dir=data_dir_of(data_dir),
        device=device,
        why=why,
    )
    if as_json:
        say(json_text(answer.row | {"stored": answer.stored}))
        return
    console = console_of()
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


VERBS = (show, train, reproduce, evaluate)


def _assignment(text: str) -> tuple[str, Any]:
    from research.planning.options import named_value  # noqa: PLC0415

    if (found := named_value(text)) is None:
        raise UserError(f"--set must be PATH=VALUE, e.g. objective.beta=4, got {text!r}")
    return found


def _config_of(name: str, seed: int) -> TrainConfig:
    """Return the config that ``name`` means: of a JSON file, a record, a model, a trial of a sweep, or drawn from a space."""
    from research.ledger.consistency import config_of  # noqa: PLC0415
    from research.ledger.records import load_record, read_config_file  # noqa: PLC0415
    from vae.portable import in_model_folder  # noqa: PLC0415
    from vae.serialization import from_json  # noqa: PLC0415

    if _is_recorded(name):
        path = local(name)
        if path.is_dir() and not SweepFolder(path).is_sweep:
            path /= CONFIG
        if path.suffix == ".json":
            text = read_config_file(path)
            if '"config_hash"' not in text:
                return from_json(text, recorded=in_model_folder(path))
        return config_of(load_record(path))
    from research.search.spaces import load_space, survey  # noqa: PLC0415

    return survey(load_space(name), epochs=None, seed=seed, draws=1).configs[0]


def _is_recorded(name: str) -> bool:
    """Return True if ``name`` means a config or a record, and not a space to draw from."""
    from research.ledger.source import names_trial  # noqa: PLC0415

    return is_url(name) or name.endswith(".json") or whole(name).is_dir() or names_trial(name)


def _row_line(row: dict[str, Any], epochs: int) -> str:
    names = ("train/loss", "val/elbo", "val/reconstruction", "val/kl", "val/denoise_error")
    figures = "  ".join(f"{name} {row[name]:.3f}" for name in names if isinstance(row.get(name), float))
    return f"epoch {row['epoch']:>3}/{epochs}  {figures}  {row['time/examples_per_second']:,.0f} examples/s"

"""The verbs that look at what sweeps came to. What each needs is imported when it runs."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads it when a verb is made
from typing import Annotated

import typer

from research.cli.options import later, warn_of_lost_events
from research.paths import whole
from research.store.layout import SweepFolder
from research.store.mirror import local, relative
from research.terminal import say


def report(
    directories: Annotated[
        list[Path],
        typer.Argument(
            help="A sweep's directory or address; several are compared.", metavar="DIR...", parser=later(local)
        ),
    ],
    *,
    out: Annotated[
        Path | None,
        typer.Option(
            help="The page. Default: DIR/report.html; of several sweeps, comparison.html here.",
            parser=whole,
            metavar="PATH",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print every figure as JSON; no page unless --out.")] = False,
    csv: Annotated[
        Path | None,
        typer.Option(
            help="Write tables: the trials to FILE.csv, or all to a FOLDER; no page unless --out.",
            parser=whole,
            metavar="PATH",
        ),
    ] = None,
    parquet: Annotated[
        Path | None,
        typer.Option(help="The same as Parquet: FILE.parquet, or a FOLDER.", parser=whole, metavar="PATH"),
    ] = None,
) -> None:
    """One page about a sweep, or several side by side, that opens without a network; its figures as JSON and tables."""
    from research.ledger.log import Ledger  # noqa: PLC0415

    ledgers = [Ledger.open(directory) for directory in directories]
    for ledger in ledgers:
        warn_of_lost_events(ledger)
    from research.views.report import export  # noqa: PLC0415 - pandas, Optuna and plotly take seconds: after the checks

    for place, write in ((csv, export.write_csv), (parquet, export.write_parquet)):
        for path in [] if place is None else write(ledgers, place):
            say(relative(path), stderr=as_json)
    if as_json:
        from research.views.report.comparison import figures  # noqa: PLC0415 - as above
        from research.views.report.facts import to_json  # noqa: PLC0415 - as above

        say(to_json(figures(ledgers)))
    if out is not None or not (as_json or csv is not None or parquet is not None):
        place = out or (SweepFolder(directories[0]).report if len(directories) == 1 else whole("comparison.html"))
        from research.views.report.page import html  # noqa: PLC0415 - as above

        export.write_text(html(ledgers), place)
        say(relative(place), stderr=as_json)


VERBS = (report,)

"""The verbs that log a sweep to W&B, and send what was written offline. What they need is imported when they run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, cast

import typer

from research.cli.options import later, one_of
from research.store.mirror import local, relative
from research.terminal import complain, say
from research.text import shell

Sweep = Annotated[
    Path, typer.Argument(help="A sweep's directory or address.", parser=later(local), metavar="DIRECTORY")
]


def sync(
    directory: Sweep,
    *,
    project: Annotated[str | None, typer.Option(help="Another W&B project than the sweep's.")] = None,
    entity: Annotated[str | None, typer.Option(help="The W&B user or team. Default: your default one.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would be uploaded.")] = False,
    timeout: Annotated[
        float, typer.Option(min=1.0, help="Seconds to wait for a run, beside those that its size needs.")
    ] = 60.0,
) -> None:
    """Upload the W&B runs that were written offline: those that have ended, each once, in order.

    Run it again after more trials, or after a failure: what is there is not sent again. Includes the finalists.
    """
    from research.tracking.sync import (  # noqa: PLC0415
        UploadError,
        check_access,
        draw_figures,
        pending,
        upload,
        without_figures,
    )

    if dry_run:
        for path in without_figures(directory):
            say(f"would draw the figures of {relative(path)} first")
    else:
        for line in draw_figures(directory):
            complain(line)
    waiting = pending(directory)
    if not waiting:
        say(f"nothing to upload: every finished W&B run of {relative(directory)} is there already")
        return
    if dry_run:
        for one in waiting:
            say(f"would upload {one.identity}  {one.bytes / 1e6:.1f} MB  {one.directory}")
        return
    done = 0
    try:
        check_access(waiting[0])
        for one in waiting:
            upload(one, project=project, entity=entity, patience_s=timeout)
            done += 1
            say(f"uploaded {one.identity} ({done} of {len(waiting)})")
    except UploadError as error:
        again = shell("research", "sync", relative(directory))
        complain(f"error: {error}; {done} of {len(waiting)} are there, {again} sends the rest")
        raise typer.Exit(1) from None


def log(
    directory: Sweep,
    *,
    mode: Annotated[str | None, typer.Option(help="offline or online. Default: the sweep's own.")] = None,
) -> None:
    """Log to W&B what a sweep's ledger has and its W&B runs lack: after a killed driver, or with W&B disabled until now."""
    if mode is not None:
        one_of("--mode", mode, {"offline": 1, "online": 1})
    from research.tracking.sink import log as log_sweep  # noqa: PLC0415

    # Beyond this point standard output is the sink's log, except for its own lines.
    raise typer.Exit(log_sweep(directory, cast("Any", mode)))


VERBS = (sync, log)

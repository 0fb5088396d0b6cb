"""The verbs of a sweep on a cluster: begun there, stopped there, brought home."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from research.cli import sweeps
from research.errors import UserError
from research.paths import whole
from research.planning.request import SweepRequest
from research.redaction import secret_in
from research.store.mirror import relative
from research.store.object_store import is_url
from research.terminal import say
from research.text import shell

if TYPE_CHECKING:
    from collections.abc import Callable

# What submit does not know is for the verb that runs on the cluster.
PASSES_ON = {"allow_extra_args": True, "ignore_unknown_options": True}

Cluster = Annotated[str, typer.Argument(help="A launcher's file (cluster.yaml), or a dashboard's http://HOST:8265.")]
Storage = Annotated[
    str, typer.Option(help="The folder of all sweeps, on a file system that all nodes share, or s3://... or gs://...")
]
_SHARED = "/shared/sweeps"
Answer = TypeVar("Answer")


def submit(
    ctx: typer.Context,
    cluster: Cluster,
    *,
    detach: Annotated[bool, typer.Option("--detach", help="Don't follow: leave when the job has begun.")] = False,
    resume: Annotated[str | None, typer.Option(help="Go on with the sweep of this name, in place of a SPACE.")] = None,
    storage: Storage = _SHARED,
    with_: Annotated[
        list[Path] | None,
        typer.Option(
            "--with",
            help="A file or folder to send along: what a space imports, a part of yours. Repeatable.",
            parser=whole,
            metavar="PATH",
        ),
    ] = None,
) -> None:
    """Run a sweep on a cluster: research submit CLUSTER SPACE, and then every option of research sweep.

    The code of this machine is what runs there. Ctrl-C leaves the sweep running. Exit code: the sweep's.
    """
    from research.clusters import jobs  # noqa: PLC0415
    from research.clusters.access import check_cluster  # noqa: PLC0415

    given = list(ctx.args)
    if cluster.startswith("-"):
        raise UserError(f"CLUSTER comes first: research submit cluster.yaml SPACE ..., got {cluster!r}")
    check_cluster(cluster)
    if any(word.split("=")[0] == "--address" for word in given):
        raise UserError("--address is the cluster's own business: leave it out")
    others = list(with_ or [])
    if resume is not None:
        command = ["resume", f"{storage.rstrip('/')}/{resume}", "--address", "auto", *given]
        _parsed("resume", [".", *command[2:]])
        name = resume
    else:
        name, command, files = _checked_sweep(given, storage)
        others += files
    for word in command:
        if (kind := secret_in(word)) is not None:
            raise UserError(
                f"the command line holds {kind}, and everyone who sees the cluster's jobs would see it: leave it out, and give "
                "the cluster its secrets by its own means"
            )
    job = _reached(cluster, lambda: jobs.submit(cluster, name, command, others))
    _say(
        f"sweep {name} runs on {cluster} as job {job}, in {storage}. Follow: {shell('research', 'watch', cluster, name)}"
    )
    _say(
        f"Stop: {shell('research', 'stop', cluster, name)}. Bring it home: {shell('research', 'fetch', cluster, name)}"
    )
    if not detach:
        raise typer.Exit(follow_remote(cluster, name, storage=storage))


def stop(
    cluster: Cluster,
    name: Annotated[str, typer.Argument(help="The sweep's name.")],
    *,
    storage: Storage = _SHARED,
) -> None:
    """Stop a sweep on a cluster, as Ctrl-C would: running trials are saved first."""
    from research.clusters import jobs  # noqa: PLC0415
    from research.clusters.access import check_cluster  # noqa: PLC0415

    check_cluster(cluster)
    said = _reached(cluster, lambda: jobs.stop(cluster, name))
    if said is None:
        raise UserError(f"sweep {name!r} does not run on {cluster}: nothing to stop")
    follow_remote(cluster, name, storage=storage, after=said)


def fetch(
    cluster: Cluster,
    name: Annotated[str, typer.Argument(help="The sweep's name.")],
    *,
    to: Annotated[Path, typer.Option(help="Where the sweep's directory goes.", parser=whole, metavar="PATH")] = Path(
        "sweeps"
    ),
    storage: Storage = _SHARED,
) -> None:
    """Bring a sweep home: ledger, models, pictures, W&B files; verified. Done again, it brings what is new."""
    from research.clusters.access import check_cluster  # noqa: PLC0415
    from research.clusters.fetch import fetch as bring  # noqa: PLC0415
    from research.store.object_store import is_url  # noqa: PLC0415

    if not is_url(storage):
        check_cluster(cluster)
    found = _reached(cluster, lambda: bring(cluster, name, storage=storage, to=to))
    _say(
        f"sweep {name} in {relative(found.directory)}: {found.events} events ({found.new} new), {found.models} kept models, "
        f"all verified. {shell('research', 'show', relative(found.directory))}"
    )


def follow_remote(cluster: str, name: str, *, storage: str = _SHARED, after: int = 0) -> int:
    """Follow a sweep's job and say how it ended. Its exit code, or 130 for who left."""
    from research.clusters import jobs  # noqa: PLC0415
    from research.clusters.access import LostConnection  # noqa: PLC0415

    follow = shell("research", "watch", cluster, name)
    elsewhere = [] if storage == _SHARED else ["--storage", storage]
    again = shell("research", "submit", cluster, "--resume", name, *elsewhere)
    try:
        code = jobs.follow(cluster, name, say=_say, after=after)
    except KeyboardInterrupt:
        _say(f"left; the sweep goes on. Follow it again: {follow}. Stop it: {shell('research', 'stop', cluster, name)}")
        return 130
    except LostConnection as lost:
        _say(f"no connection ({lost}); the sweep may go on. Follow it again: {follow}. If its head was lost: {again}")
        return 1
    if code == 0:
        _say(f"Bring it home: {shell('research', 'fetch', cluster, name)}")
    else:
        _say(f"the job has ended with exit code {code}. Continue on the cluster with: {again}")
    return code


VERBS = (stop, fetch)


def _checked_sweep(given: list[str], storage: str) -> tuple[str, list[str], list[Path]]:
    """The sweep's name, the command for the cluster, and the files that it needs there.

    Everything that needs neither the cluster nor its data is checked here, so that a mistake costs no round trip.
    """
    asked = _parsed("sweep", given)
    if str(asked["storage"]) != str(SweepRequest.storage):
        raise UserError("--storage is given once")
    if asked["concurrent"] is None:
        raise UserError("--concurrent is needed: a cluster that grows has no fixed number of slots")
    from research.planning.prepare import check  # noqa: PLC0415

    name = check(SweepRequest(**{**asked, "address": "auto", "data_dir": None, "learn_from": None}))
    files = [Path(asked["space"])] if Path(asked["space"]).is_file() else []
    # A file of this machine is found beside the code there, under its own name.
    sent = {asked["space"]: files[0].name} if files else {}
    for source in [*(asked["start_from"] or []), *(asked["learn_from"] or [])]:
        if is_url(source):
            continue  # the cluster reads the object store too
        if Path(source).is_file():
            files.append(Path(source))
            sent[source] = Path(source).name
        elif Path(source).is_dir():
            raise UserError(
                f"{source!r} is a folder of this machine: give a sweep's on the cluster ({storage}/NAME), or a record.json"
            )
    words = [sent.get(word, word) for word in given]
    named = [] if asked["name"] else ["--name", name]
    return name, ["sweep", *words, *named, "--storage", storage, "--address", "auto"], files


def _parsed(name: str, words: list[str]) -> dict[str, Any]:
    """Return the options of a verb as typer reads ``words`` for it. Nothing is looked up or fetched for them."""
    verbs = typer.Typer()
    for verb in sweeps.VERBS:
        verbs.command()(verb)
    found: Any = typer.main.get_command(verbs).commands[name]  # type: ignore[attr-defined]
    return dict(found.make_context(name, list(words)).params)


def _reached(cluster: str, ask: Callable[[], Answer]) -> Answer:
    """Return the answer of ``ask``; a cluster that cannot be reached is one line."""
    from research.clusters.access import LostConnection  # noqa: PLC0415

    try:
        return ask()
    except LostConnection as lost:
        raise UserError(f"{cluster} can't be reached: {lost}") from None


def _say(text: str) -> None:
    say(text)

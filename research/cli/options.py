"""Options that verbs in several files share."""

from __future__ import annotations

import functools
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from research.errors import UserError
from research.store.data_copy import chosen_directory, data_directory
from research.terminal import complain, console

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    from research.ledger.log import Ledger


@dataclass(frozen=True)
class Later:
    """An argument that its verb looks up, or fetches from an object store, when it begins. Parsing does neither."""

    text: str
    resolve: Callable[[str], Any]

    def __str__(self) -> str:
        """Return the argument as it was typed."""
        return self.text


def later(resolve: Callable[[str], Any]) -> Callable[[str], Later]:
    """Return a parser for typer that leaves ``resolve(text)`` to the beginning of the verb; see :func:`resolving`."""
    return lambda text: Later(text, resolve)


def resolving(verb: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``verb`` with every :class:`Later` argument resolved before it begins."""

    def value_of(given: object) -> object:
        if isinstance(given, Later):
            return given.resolve(given.text)
        return [value_of(one) for one in given] if isinstance(given, list) else given

    @functools.wraps(verb)
    def run(**arguments: object) -> object:
        return verb(**{name: value_of(given) for name, given in arguments.items()})

    return run


DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        help="Where data sets lie, in torchvision's layout: a folder, or s3://... or gs://..., copied here once. "
        "Default: $RESEARCH_DATA_DIR, else ./data.",
        parser=later(data_directory),
        metavar="PATH",
    ),
]
Trust = Annotated[
    bool,
    typer.Option(
        "--trust",
        help="Of a record from elsewhere: contact the bucket and run the external parts that it names, unasked.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


def console_of(*, quiet: bool = False, stderr: bool = False) -> Console:
    """Return the console that a verb prints to."""
    return console(quiet=quiet, stderr=stderr)


def warn_of_lost_events(ledger: Ledger) -> None:
    """Say on stderr that a ledger has lost its last events: what is shown of it is what is left."""
    from research.ledger.tail import lost_tail  # noqa: PLC0415

    if (lost := lost_tail(ledger)) is not None:
        complain(f"warning: {lost}")


def set_threads(threads: int) -> None:
    """Set the CPU threads of torch, whose pools take their size from the environment when it is imported."""
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(threads)
    import torch  # noqa: PLC0415

    torch.set_num_threads(threads)


def data_dir_of(data_dir: Path | None) -> Path | None:
    """Return the data directory that was named by the option or by ``$RESEARCH_DATA_DIR``."""
    return chosen_directory(data_dir)


def check_device(device: str) -> None:
    """Refuse a device that torch does not have."""
    import torch  # noqa: PLC0415

    if device.partition(":")[0] not in {"cpu", "cuda"}:
        raise UserError(f"--device must be cpu or cuda, got {device!r}")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(f"--device {device!r} needs a GPU that torch can see, and there is none; use --device cpu")


def one_of(option: str, value: str, choices: dict[str, Any]) -> Any:  # noqa: ANN401 - whatever the choice stands for
    """Return the choice that ``value`` names, or refuse it with the list of choices."""
    if value not in choices:
        raise UserError(f"{option} must be one of {', '.join(choices)}, got {value!r}")
    return choices[value]


def check_trust(path: Path, *, contact: bool, trust: bool, stacked: bool = False) -> None:
    """Say what training a record from elsewhere would contact and run, and ask, before it does either.

    ``contact``: its data would be read from where it says.

    Raises:
        UserError: the answer was no, or there is no terminal to ask on.

    """
    from research.ledger.trust import foreign  # noqa: PLC0415

    found = None if trust else foreign(path, stacked=stacked)
    would = [] if found is None else found.would(contact=contact)
    if not would:
        return
    said = f"{str(path)!r} is from no sweep or run of yours; training it would {' and '.join(would)}"
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UserError(f"{said}: add --trust if you trust it")
    typer.echo(f"{said}.", err=True)
    if not typer.confirm("Do you trust it?", err=True):
        raise UserError(f"{str(path)!r} is not trusted: nothing was contacted, and nothing of it ran")

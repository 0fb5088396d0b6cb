"""Options that verbs in several files share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from research.errors import UserError
from research.store.data_copy import data_directory
from research.terminal import console

if TYPE_CHECKING:
    from rich.console import Console

DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        help="Where data sets lie, in torchvision's layout: a folder, or s3://... or gs://..., copied here once. "
        "Default: $RESEARCH_DATA_DIR, else ./data.",
        parser=data_directory,
        metavar="PATH",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


def console_of(*, quiet: bool = False, stderr: bool = False) -> Console:
    """Return the console that a verb prints to."""
    return console(quiet=quiet, stderr=stderr)


def set_threads(threads: int) -> None:
    """Set the CPU threads of torch, whose pools take their size from the environment when it is imported."""
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(threads)
    import torch  # noqa: PLC0415

    torch.set_num_threads(threads)


def data_dir_of(data_dir: Path | None) -> Path | None:
    """Return the data directory that was named by the option or by ``$RESEARCH_DATA_DIR``."""
    return data_dir or data_directory(os.environ.get("RESEARCH_DATA_DIR") or None)


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

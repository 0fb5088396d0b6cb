"""Options that verbs in several files share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from research.data_copy import data_directory

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

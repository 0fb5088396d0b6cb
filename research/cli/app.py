"""The verbs of ``research``. What each needs is imported when it runs: ``--help`` waits for nothing."""

from __future__ import annotations

import sys
import traceback
from itertools import pairwise
from typing import Any

import typer

from research.cli import cluster as cli_cluster
from research.cli import models as cli_models
from research.cli import report as cli_results
from research.cli import runs, sweeps
from research.cli import study as cli_study
from research.cli import wandb_verb as cli_wandb
from research.errors import FILES, UserError
from research.redaction import redacted

app = typer.Typer(
    help="Sweeps over variational autoencoders that can be compared, resumed and reproduced.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


for _verb in (
    *sweeps.VERBS,
    *runs.VERBS,
    *cli_models.VERBS,
    *cli_results.VERBS,
    *cli_study.VERBS,
    *cli_wandb.VERBS,
    *cli_cluster.VERBS,
):
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

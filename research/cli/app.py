"""The verbs of ``research``. What each needs is imported when it runs: ``--help`` waits for nothing."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from itertools import pairwise
from typing import Any, NoReturn

import typer

from research.cli import cluster as cli_cluster
from research.cli import models as cli_models
from research.cli import report as cli_results
from research.cli import runs, sweeps
from research.cli import study as cli_study
from research.cli import wandb_verb as cli_wandb
from research.cli.options import resolving
from research.errors import FILES, UserError
from research.paths import note_start
from research.redaction import redacted
from research.terminal import (
    OUTPUT_CLOSED,
    Ending,
    OutputClosedError,
    complain,
    flush_output,
    guard_streams,
    output_lost,
)

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
    app.command()(resolving(_verb))
app.command(context_settings=cli_cluster.PASSES_ON)(resolving(cli_cluster.submit))


def program() -> None:
    """The entry point of the process: :func:`main`, with the process's own streams and its end looked after."""
    guard_streams()
    ending = Ending()
    try:
        try:
            note_start()
        except UserError as error:
            _fail(str(error))
        main()
    except SystemExit as stopped:
        with contextlib.suppress(OutputClosedError):
            flush_output()
        ending.code = stopped.code if isinstance(stopped.code, int) else int(stopped.code is not None)
        raise


def main() -> None:
    """Run one verb. A user's mistake is one line and exit code 2; exit code 141 means that the output was closed."""
    from vae.system.user_code import end_copy, signal_notes  # noqa: PLC0415 - not for the pages of --help

    process = os.getpid()
    code: object = None
    with signal_notes() as notes:
        try:
            code = app(standalone_mode=False)
            flush_output()
        except BaseException as error:  # noqa: BLE001 - each kind has its line and exit code below
            end_copy(process, USERS_CODE, error)
            _end_by(error, by_signal=notes.raised is not None)
    end_copy(process, USERS_CODE)
    if not code and output_lost() is not None:
        _end_without_output()
    sys.exit(code if isinstance(code, int) else 0)


USERS_CODE = "code from outside this project"


def _end_by(error: BaseException, *, by_signal: bool) -> NoReturn:
    """Say what is behind ``error`` and exit. ``by_signal``: Ctrl-C, or another signal, was received."""
    from vae.system.user_code import UserCodeExit, exit_line  # noqa: PLC0415 - as above

    if isinstance(error, OutputClosedError):
        _end_without_output()
    if isinstance(error, KeyboardInterrupt) and by_signal:
        sys.exit(130)
    if isinstance(error, typer.Abort):
        cause = error.__cause__  # the KeyboardInterrupt or EOFError that click made of it
        if by_signal or cause is None:
            sys.exit(130)
        error = cause
    # Loaded by now if that is what was raised: no import is paid for on the way to an error.
    known = [getattr(sys.modules.get(m), n, None) for m, n in _USER_ERRORS]
    if isinstance(error, UserError | UserCodeExit) or any(k is not None and isinstance(error, k) for k in known):
        _fail(str(error))
    if isinstance(error, OSError) and error.filename is not None and error.errno in FILES:
        _fail(f"{str(error.filename)[:500]} can't be used: {error.strerror}")
    if isinstance(error, _UsageError):
        _fail(error.format_message() + _value_given(error))
    if not isinstance(error, Exception):  # typer raises none of these, and no verb does
        _fail(exit_line(USERS_CODE, error))
    complain(redacted("".join(traceback.format_exception(error))))  # a bug's: as Python prints it, without secrets
    sys.exit(1)


def _end_without_output() -> NoReturn:
    """A reader that has gone (``| head``) has what it wanted; of any other reason a person must hear."""
    why = output_lost() or ""
    if "can't be written" in why:
        complain(f"error: {why}")
    sys.exit(OUTPUT_CLOSED)


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


def _fail(message: str) -> NoReturn:
    line = redacted(" ".join(message.split()))
    complain(f"error: {line if len(line) <= LONGEST_LINE else line[:LONGEST_LINE] + ' ...'}")
    sys.exit(2)

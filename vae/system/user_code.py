"""Call code that a user wrote so that it cannot end, copy or take over the process that calls it.

A space, an external part and every module that they import are code of a user. Python lets such code end the process:
``sys.exit()``, a ``KeyboardInterrupt`` that no signal caused, any other ``BaseException``, or ``os.fork()``, after which
two processes return from one call. Here the first three become an ordinary exception, and the copy ends.
"""

from __future__ import annotations

import hashlib
import os
import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator
    from pathlib import Path
    from types import FrameType, ModuleType

T = TypeVar("T")
_LONGEST_VALUE = 200  # letters of what was raised that are repeated
_END = object()


class UserCodeExit(Exception):
    """Code of a user tried to end the process. The message is one line with the exception, its place and the rule."""


class OwnExit(BaseException):
    """Base of what this project itself raises through the code of a user: :func:`user_code` lets it pass."""


class SignalNotes:
    """Holds the exception that a signal handler raised while :func:`signal_notes` was active."""

    raised: BaseException | None = None


@contextmanager
def signal_notes() -> Iterator[SignalNotes]:
    """Note which exception a signal's handler raises: that is how a real Ctrl-C is told from an imitation.

    The handlers that were set before the block are set again after it, whatever the block did to them. Only a
    process's main thread runs handlers; in any other thread nothing is noted.
    """
    notes = SignalNotes()
    before: dict[signal.Signals, Callable[[int, FrameType | None], object]] = {}

    def noting(handler: Callable[[int, FrameType | None], object]) -> Callable[[int, FrameType | None], None]:
        def handle(number: int, frame: FrameType | None) -> None:
            try:
                handler(number, frame)
            except BaseException as error:
                notes.raised = error
                raise

        return handle

    if threading.current_thread() is threading.main_thread():
        for number in signal.valid_signals():
            handler = signal.getsignal(number)
            if callable(handler):
                before[number] = handler
                signal.signal(number, noting(handler))
    try:
        yield notes
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def user_code(what: str) -> Iterator[None]:
    """Run a block that calls code of a user; ``what`` names it in messages, e.g. ``space 'mine.py'``.

    Exceptions pass as they are. What a signal's handler raised in the block is raised after it, even where the
    code caught it. A process that the code forked and that leaves the block ends there.

    Raises:
        UserCodeExit: the code raised a ``BaseException`` that is no ``Exception``.

    """
    process = os.getpid()
    with signal_notes() as notes:
        try:
            yield
        except BaseException as error:
            end_copy(process, what, error)
            if notes.raised is None and not isinstance(error, Exception | OwnExit):
                raise UserCodeExit(exit_line(what, error)) from error
            if notes.raised is None or notes.raised is error:
                raise
        end_copy(process, what)
        if notes.raised is not None:
            raise notes.raised


def each(made: Iterable[T], what: str) -> Generator[T, None, None]:
    """Yield from ``made``, each step of which calls code of a user: see :func:`user_code`."""
    iterator = iter(made)
    while True:
        with user_code(what):
            item = next(iterator, _END)
        if item is _END:
            return
        yield item  # type: ignore[misc] # not _END


def run_source(module: ModuleType, source: bytes, file: Path) -> str:
    """Run ``source``, read from ``file``, as the body of ``module``; return its sha256.

    Exactly these bytes run. Python's own loader would read the file a second time, or take a compiled copy of it.
    """
    exec(compile(source, str(file), "exec", dont_inherit=True), module.__dict__)  # noqa: S102 - that is what a space is
    return hashlib.sha256(source).hexdigest()


def end_copy(process: int, what: str, error: BaseException | None = None) -> None:
    """End this process where it is not ``process``: code of a user has forked it, and it came back from there.

    ``error``: with what it came. A ``SystemExit`` says that the copy was to end, and with which code.
    """
    if os.getpid() == process:
        return
    if isinstance(error, SystemExit):
        os._exit(error.code if isinstance(error.code, int) else 0 if error.code is None else 1)
    os.write(2, f"a process that {what} forked has come back from it, and is ended\n".encode(errors="replace"))
    os._exit(1)


def exit_line(what: str, error: BaseException) -> str:
    """Return the line that says what ``what`` raised, where, and the rule."""
    try:
        values = ", ".join(map(repr, error.args))[:_LONGEST_VALUE]
    except Exception:  # noqa: BLE001 - the repr of a user's own object
        values = "..."
    return (
        f"{what} raised {type(error).__name__}({values}){_place(error)}: spaces and parts must not end the process; "
        "let them return, or raise an exception"
    )


def _place(error: BaseException) -> str:
    """Return the file and line that raised ``error``, in brackets."""
    trace, found = error.__traceback__, ""
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        # exit() is a function of the site module, written in Python.
        if os.path.dirname(name) != os.path.dirname(os.__file__) and not name.startswith("<"):  # noqa: PTH120 - may be no path
            found = f" ({os.path.basename(name)}, line {trace.tb_lineno})"  # noqa: PTH119 - as above
        trace = trace.tb_next
    return found

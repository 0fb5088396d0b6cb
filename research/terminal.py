"""The output of the command line: consoles, a standard output that is closed, and the end of the process.

``research ... | head -3`` closes the pipe after three lines. Nobody reads the rest, so a verb ends. A
driver stops its sweep as Ctrl-C would, so that the sweep can be resumed. Both exit with ``OUTPUT_CLOSED``.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from research.text import visible

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

OUTPUT_CLOSED = 128 + signal.SIGPIPE  # the exit code that a shell reports for a program that SIGPIPE has ended
_PATIENCE_S = 5.0  # the time that threads get to end, once the process has nothing left to do


class OutputClosedError(Exception):
    """Standard output can't be written to: it is closed, the reader of the pipe has gone, or its disk is full."""


def console(*, quiet: bool = False, stderr: bool = False, **options: Any) -> Console:  # noqa: ANN401 - rich's own
    """Return a console that shows text as it is.

    Markup (``[bold]``), names of emoji and highlighting are off. Our own styles are ``Text`` and ``Style`` objects.
    Control characters are written out, see :func:`research.text.visible`. Every console of the program is made here.
    """
    from rich.console import Console  # noqa: PLC0415 - not every verb prints with it
    from rich.segment import Segment  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    class Plain(Console):
        """A console that writes out every control character, wherever in a renderable it stands."""

        def render_str(self, text: str, **asked: Any) -> Text:  # noqa: ANN401 - rich's own
            return super().render_str(visible(text, lines=True), **asked)

        def render(self, renderable: Any, options: Any = None) -> Iterator[Segment]:  # noqa: ANN401 - rich's own
            if isinstance(renderable, Text) and (shown := visible(renderable.plain, lines=True)) != renderable.plain:
                renderable = Text(shown, style=renderable.style, overflow=renderable.overflow, end=renderable.end)
            for segment in super().render(renderable, options):
                if segment.control:
                    yield segment  # rich's own control code, which moves the cursor of a live table
                else:
                    yield Segment(visible(segment.text, lines=True), segment.style)

        def on_broken_pipe(self) -> None:
            raise OutputClosedError

    stream = sys.stderr if stderr else sys.stdout
    if stream is not None and not stream.isatty():
        # A pipe has no width: tables must not be folded to 80 columns there.
        options.setdefault("width", 160)
    return Plain(quiet=quiet, stderr=stderr, markup=False, emoji=False, highlight=False, **options)


def say(text: str, *, stderr: bool = False, end: str = "\n") -> None:
    """Print plain text, with control characters written out."""
    stream = sys.stderr if stderr else sys.stdout
    if stream is not None:
        stream.write(visible(text, lines=True) + end)
        stream.flush()


def complain(text: str) -> None:
    """Print to standard error. If it is closed, the text is dropped."""
    with contextlib.suppress(OSError, ValueError):
        say(text, stderr=True)


class _Output(io.FileIO):
    """A standard stream that raises once when it is closed, and then drops everything that is written to it."""

    lost: OSError | None = None
    quiet = False  # a driver calls `output_lost` when it is ready to

    def write(self, content: Any) -> int:  # noqa: ANN401 - any buffer
        if self.lost is None:
            try:
                return super().write(content) or 0
            except OSError as error:
                self.lost = error
                if not self.quiet:
                    raise OutputClosedError from error
        return len(memoryview(content).cast("B"))


_output: _Output | None = None  # the stream of this process, if the command line runs in it


def output_lost() -> str | None:
    """Return why standard output can't be written to; None as long as it can."""
    if _output is None or _output.lost is None:
        return None
    return (
        "standard output was closed"
        if isinstance(_output.lost, BrokenPipeError)
        else (f"standard output can't be written ({_output.lost.strerror})")
    )


@contextlib.contextmanager
def output_may_close() -> Iterator[None]:
    """Let printing to a closed output pass inside this block, for code that must save work first.

    :func:`output_lost` returns whether the output was closed.
    """
    if _output is None:
        yield
        return
    _output.quiet = True
    try:
        yield
    finally:
        _output.quiet = False


def guard_streams() -> None:
    """Take over the process's standard streams. For the command line, before anything is opened or printed.

    A closed descriptor would be given to the next file that is opened, and what is printed would be written into that:
    standard input and error become /dev/null, standard output a pipe without a reader. Text that the encoding of a
    stream lacks is written out instead of being an error.
    """
    global _output  # noqa: PLW0603 - there is one standard output
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            _open_as(descriptor)
    if sys.stderr is None:
        sys.stderr = sys.__stderr__ = open(2, "w", closefd=False, errors="backslashreplace")  # type: ignore[misc] # noqa: SIM115
    elif isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr.reconfigure(errors="backslashreplace")
    stream = sys.stdout
    ours = stream is None or (stream is sys.__stdout__ and stream is not None and stream.fileno() == 1)
    if not ours or _output is not None:  # a test's, a notebook's
        return
    encoding = "utf-8" if stream is None else stream.encoding
    _output = _Output(1, "w", closefd=False)
    sys.stdout = sys.__stdout__ = io.TextIOWrapper(  # type: ignore[misc]
        io.BufferedWriter(_output),
        encoding=encoding,
        errors="backslashreplace",
        line_buffering=_output.isatty(),
        write_through=False,
    )


def _open_as(descriptor: int) -> None:
    if descriptor == 1:
        reader, opened = os.pipe()
        os.close(reader)
    else:
        opened = os.open(os.devnull, os.O_RDWR)
    if opened != descriptor:
        os.dup2(opened, descriptor)
        os.close(opened)
    os.set_inheritable(descriptor, True)  # noqa: FBT003 - the system call's


def flush_output() -> None:
    """Write what is still held back.

    Raises:
        OutputClosedError: it can't be written.

    """
    if sys.stdout is not None:
        sys.stdout.flush()


class Ending:
    """Ends the process with ``code`` after its verb, even if a space has left threads behind.

    At its end Python waits for every thread that is not a daemon, and for the processes of ``multiprocessing``. One
    that never ends would keep ``research`` from ending. They get some seconds; then they are named and abandoned.
    """

    def __init__(self, patience_s: float = _PATIENCE_S) -> None:
        """Start to wait for the end of the main thread."""
        self.code: int | None = None  # None: the process goes on after the verb, in a test or a script
        self.patience_s = patience_s
        threading.Thread(target=self._watch, name="ending", daemon=True).start()

    def _watch(self) -> None:
        threading.main_thread().join()
        time.sleep(self.patience_s)
        if self.code is None:
            return
        left = [f"thread {thread.name!r}" for thread in threading.enumerate() if _keeps_from_ending(thread)]
        processes = sys.modules.get("multiprocessing.process")
        left += [f"process {child.name!r} (pid {child.pid})" for child in list(getattr(processes, "_children", ()))]
        complain(
            f"not waited for: {', '.join(left) or 'something at the end of the process'}. It still ran "
            f"{self.patience_s:g} s after the end, left behind by a space, a part or a library"
        )
        os._exit(self.code)


def _keeps_from_ending(thread: threading.Thread) -> bool:
    return thread.is_alive() and not thread.daemon and thread is not threading.main_thread()

"""Weights & Biases, fed from the ledger by a process of its own, so that it can never cost the training.

The driver holds a ``Sink``: a child process, told by its standard input closing that no more events will come
(the kernel closes it too when the driver dies). The child follows the ledger and makes each trial a W&B run,
offline or online (``tracking_runs``), and at the end the sweep itself another (``tracking_sweep``). What was cut
short is logged anew from the ledger, under the same id, by the next session or by hand:

    research log DIR
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import math
import os
import signal
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Self

from research.errors import UserError
from research.ledger.log import Ledger
from research.patience import patient
from research.planning.tracking_mode import DEFAULT_URL, Mode
from research.processes import kill_children
from research.redaction import has_user_info, redacted
from research.store.layout import SweepFolder
from research.store.lock import SweepLock
from research.store.scratch import remove_leftovers, temporary_folder
from research.text import shell
from research.tracking.sweep_run import log_sweep
from research.tracking.trial_runs import TrialRuns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

OFFLINE_INSTEAD = "logged offline instead, research sync sends it"
POLL_SECONDS = 0.3
SCRATCH = "rw-"  # its temporary folders
REACH_S = 5.0
TEARDOWN_S = 3.0
UPLOAD_S = 12.0  # after the end, for what is sent online: the driver waits for 30 s, and offline files need the rest
PLOT_PATIENCE_S = 10.0  # after the end: a figure that has not begun by then is left out, the driver waits for 30 s
RESTARTS = 3
MOST_LINES = 20  # said to the driver, who reads them at the end: the pipe between must not fill up
# Those of the user's W&B variables that would make all runs one, or put them elsewhere.
NOT_OURS = (
    "DIR",
    "DISABLED",
    "FORK_FROM",
    "JOB_TYPE",
    "MODE",
    "NAME",
    "RESUME",
    "RESUME_FROM",
    "RUN_GROUP",
    "RUN_ID",
    "SERVICE",
)


def unreachable() -> str | None:
    """Why W&B's server does not answer, found out within seconds; W&B's client alone would try for a long time."""
    url = os.environ.get("WANDB_BASE_URL") or DEFAULT_URL
    if has_user_info(url):
        return (
            "WANDB_BASE_URL holds a user name or password, which W&B's client would write into its logs: take it out, and "
            "use wandb login or WANDB_API_KEY"
        )
    if not url.startswith(("http://", "https://")):
        return f"WANDB_BASE_URL must begin with http:// or https://, got {url!r}"
    # A timeout is for each piece of an answer: one that comes byte by byte would hold the process for hours.
    found: list[str | None] = []
    asking = threading.Thread(target=lambda: found.append(_not_answering(url)), daemon=True)
    asking.start()
    seconds = patient(REACH_S)
    asking.join(seconds)
    return found[0] if found else f"{url} has not answered within {seconds:.0f} s"


def _not_answering(url: str) -> str | None:
    try:
        urllib.request.urlopen(url, timeout=patient(REACH_S)).close()  # noqa: S310 - the user's own server
    except urllib.error.HTTPError:
        return None  # it answers
    except Exception as error:  # noqa: BLE001 - a server that is none can make the client raise anything
        reason = getattr(error, "reason", error)
        # Of certificates W&B's client has settings of its own.
        return None if isinstance(reason, ssl.SSLError) else f"{url} can't be reached ({_one_line(error)})"
    return None


class Sink:
    """The driver's end: starts the child, and at the end waits for it, but never longer than it said."""

    def __init__(self, sweep_dir: Path, mode: Mode) -> None:
        """Use ``Sink.start``."""
        self._sweep_dir, self._mode = Path(sweep_dir).absolute(), mode
        self._process: subprocess.Popen[str] | None = None
        self._problem: str | None = None

    @classmethod
    def start(cls, sweep_dir: Path, mode: Mode) -> Self:
        """Follow the ledger in ``sweep_dir`` from its first event on. Raises nothing: ``close`` tells."""
        sink = cls(sweep_dir, mode)
        if mode != "disabled":
            sink._spawn()
        return sink

    def close(self, deadline_s: float = 30.0) -> list[str]:
        """Let the child log what the ledger has, for at most ``deadline_s`` seconds, more on a busy machine; one line per problem."""
        deadline = time.monotonic() + patient(deadline_s)
        if self._process is not None and self._process.poll() is not None:
            self._collect(deadline)  # it died on the way: what it has not logged, another logs now
            self._spawn()
        lines = self._collect(deadline) if self._process is not None else []
        if self._problem is not None:
            lines.append(f"{self._problem}; log the rest with: {shell('research', 'log', self._sweep_dir)}")
            self._problem = None
        return lines

    def abandon(self) -> None:
        """End the child and what it started at once: the sweep is gone, and what they write would come back half."""
        process, self._process = self._process, None
        if process is None:
            return
        kill_children(process.pid)
        process.kill()
        process.communicate()
        remove_leftovers(SCRATCH)

    def _spawn(self) -> None:
        root = str(Path(__file__).resolve().parent.parent.parent)
        inherited = os.environ.get("PYTHONPATH")
        try:
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                # -P: never a vae.py or a folder research/ of the working directory.
                [
                    sys.executable,
                    "-P",
                    "-m",
                    "research.tracking",
                    str(self._sweep_dir),
                    "--mode",
                    self._mode,
                    "--follow",
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                env=os.environ | {"PYTHONPATH": os.pathsep.join([root, inherited] if inherited else [root])},
                start_new_session=True,  # Ctrl-C in the terminal is for the driver
            )
        except OSError as error:
            self._problem = f"W&B: could not be started ({error.strerror})"

    def _collect(self, deadline: float) -> list[str]:
        """Wait for the child's end; what it said. What is wrong after that is in ``_problem``."""
        process, self._process = self._process, None
        assert process is not None
        self._problem = None
        try:
            output, _ = process.communicate(timeout=max(deadline - time.monotonic(), 0.0))
        except BaseException as error:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            self._problem = "W&B: was not done in time"
        finally:
            remove_leftovers(SCRATCH)  # where the child was killed
        lines = output.splitlines()
        said = [line for line in lines if line.startswith("W&B: ")]
        if self._problem is None and process.returncode != 0:
            self._problem = said.pop() if said else f"W&B: {lines[-1] if lines else 'the sink was killed'}"
        return said


def main() -> int:
    """The child process: log every trial that has no mark yet, and end."""
    parser = argparse.ArgumentParser(prog="python -m research.tracking", description=main.__doc__)
    parser.add_argument("sweep_dir", type=Path, metavar="DIR", help="the sweep's directory")
    parser.add_argument("--mode", choices=["offline", "online"], default=None, help="default: the sweep's own")
    parser.add_argument("--follow", action="store_true", help="until standard input closes")
    arguments = parser.parse_args()
    return log(arguments.sweep_dir, arguments.mode, follow=arguments.follow)


def log(sweep_dir: Path, mode: Mode | None, *, follow: bool = False) -> int:
    """Log what the ledger of ``sweep_dir`` has and W&B has not; return the exit code.

    ``mode`` None: the sweep's own. ``follow``: until standard input closes. From here on the process's output goes to
    the sink's log.
    """
    closing = threading.Event()
    if follow:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the driver
        os.nice(10)
        threading.Thread(target=_await_end, args=(closing,), daemon=True).start()
    else:
        closing.set()
    _own_temporary_folder()
    # What we say goes to the driver; what wandb prints, and tracebacks, go to the log.
    speech = os.fdopen(os.dup(1), "w", buffering=1)
    said: set[str] = set()

    def say(line: str) -> None:
        if line not in said and len(said) < MOST_LINES:
            said.add(line)
            with contextlib.suppress(OSError):  # the driver is gone
                speech.write(f"W&B: {redacted(line)}\n")

    folder = SweepFolder(sweep_dir.absolute()).wandb
    try:
        ledger = Ledger.open(sweep_dir)
        folder.mkdir(exist_ok=True)
        log = os.open(SweepFolder(sweep_dir).wandb_log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        os.dup2(log, 1)
        os.dup2(log, 2)
        mode = mode or ("online" if ledger.settings.wandb == "online" else "offline")
        with _lock(folder):
            status = _follow(ledger, mode, closing, say, follow=follow)
    except (UserError, OSError) as error:
        say(_one_line(error))
        return 1
    if status == 0 and not follow:
        say(f"every ended trial of {sweep_dir} is logged in {folder}")
    return status


def _own_temporary_folder() -> None:
    """Have W&B's temporary folders, which it leaves behind, in one that goes with this process.

    It goes after W&B's own last acts: what was registered first is done last.
    """
    folder = temporary_folder(SCRATCH)
    os.environ["TMPDIR"], _ = map(str, folder.__enter__())
    tempfile.tempdir = None
    atexit.register(folder.__exit__, None, None, None)


def _await_end(closing: threading.Event) -> None:
    while os.read(0, 4096):  # not sys.stdin: its lock, held at the interpreter's end, would abort it
        pass
    closing.set()


def _follow(ledger: Ledger, mode: Mode, closing: threading.Event, say: Callable[[str], None], *, follow: bool) -> int:
    folder = ledger.folder.wandb
    for name in NOT_OURS:
        os.environ.pop(f"WANDB_{name}", None)
    os.environ |= {"WANDB_SILENT": "true", "WANDB_CONSOLE": "off", "WANDB_ERROR_REPORTING": "false"}
    for name in ("DATA", "CACHE", "ARTIFACT", *(["CONFIG"] if mode == "offline" else [])):
        os.environ.setdefault(f"WANDB_{name}_DIR", str(folder / name.lower()))
    try:
        import wandb  # noqa: PLC0415 - seconds, and never in the driver
    except Exception as error:  # noqa: BLE001 - whatever a broken installation raises
        traceback.print_exc()
        say(f"wandb can't be imported ({_one_line(error)})")
        return 1
    if mode == "online" and (reason := unreachable()) is not None:
        mode = "offline"
        say(f"online failed ({reason}); {OFFLINE_INSTEAD}")
    for left in range(RESTARTS, -1, -1):
        if mode == "offline":
            # Nobody is asked: an address that is none would make W&B's client refuse to write its files.
            os.environ.pop("WANDB_BASE_URL", None)
        done = threading.Event()
        if mode == "online" and follow:
            threading.Thread(target=_end_late_upload, args=(closing, done), daemon=True).start()
        try:
            _feed(TrialRuns(ledger, mode, say), closing, follow=follow)
        except UserError:  # the ledger's
            raise
        except Exception as error:  # noqa: BLE001 - a dead wandb-core raises what it likes
            traceback.print_exc()
            if left == 0:
                say(f"gave up after {RESTARTS + 1} attempts ({_one_line(error)}), see {ledger.folder.wandb_log}")
                return 1
            if mode == "online":
                mode = "offline"
                say(f"online failed ({_one_line(error)}); {OFFLINE_INSTEAD}")
            # A run that failed keeps its id in use, and wandb-core may be gone: only a new one will do.
            _tear_down(wandb.teardown)
        else:
            return 0
        finally:
            done.set()
    return 1


def _end_late_upload(closing: threading.Event, done: threading.Event) -> None:
    """End W&B's client where its server is too slow once no more events come: then there is time to write offline."""
    closing.wait()
    if not done.wait(patient(UPLOAD_S)):
        kill_children()


def _tear_down(teardown: Callable[[], None]) -> None:
    """End W&B's client in good order, or by force where it goes on waiting for its server."""

    def end() -> None:
        with contextlib.suppress(BaseException):
            teardown()

    ending = threading.Thread(target=end, daemon=True)
    ending.start()
    ending.join(patient(TEARDOWN_S))
    if ending.is_alive():
        kill_children()
        ending.join(patient(TEARDOWN_S))


def _feed(runs: TrialRuns, closing: threading.Event, *, follow: bool) -> None:
    """Follow the ledger until no more events come; then log what is known only at the end.

    A driver that waits gets no figures of its sweep in offline mode: ``research sync`` draws them before it uploads.
    """
    while True:
        last = closing.is_set()  # asked before reading: what was written before it closed is seen
        runs.ledger.refresh()
        runs.catch_up()
        if last:
            break
        closing.wait(POLL_SECONDS)
    until = time.monotonic() + (PLOT_PATIENCE_S if follow else math.inf)
    later = follow and runs.mode == "offline"
    runs.close()
    runs.log_models()
    log_sweep(runs.ledger, runs.mode, runs.say, until=until, figures_later=later)
    if runs.ledger.settings.parent is not None:
        _refresh_parent(runs, until, figures_later=later)


def _refresh_parent(runs: TrialRuns, until: float, *, figures_later: bool) -> None:
    """Show the finalists in the run of their sweep too, unless another process works on it."""
    parent = runs.ledger.settings.parent
    with contextlib.suppress(UserError, OSError):
        ledger = Ledger.open(runs.ledger.directory.parent)
        if parent is None or ledger.identity != parent.identity or ledger.settings.wandb == "disabled":
            return
        folder = ledger.folder.wandb
        folder.mkdir(exist_ok=True)
        with _lock(folder, patience_s=0.0):
            log_sweep(ledger, runs.mode, runs.say, until=until, figures_later=figures_later)


@contextlib.contextmanager
def _lock(folder: Path, patience_s: float = 20.0) -> Iterator[None]:
    """One sink per sweep; that of a driver that has just died is given time to finish."""
    until = time.monotonic() + patient(patience_s)
    while True:
        try:
            lock = SweepLock(folder).__enter__()
            break
        except UserError:
            if time.monotonic() > until:
                raise
            time.sleep(0.2)
    try:
        yield
    finally:
        lock.__exit__(None, None, None)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__

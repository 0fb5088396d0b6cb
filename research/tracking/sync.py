"""Uploads what was written offline, one run after the other, with W&B's own ``wandb sync``.

``wandb sync`` (0.31) waits for hours on a server that does not answer, ends with 0 whatever happened, and marks a run
as synced whose upload was refused. So each run gets a process of its own with a deadline, and counts as uploaded
when the client says that it has finished it and its log holds no error. That is written into
``DIR/wandb/uploaded``, which the sink reads too. Rows that the service has are not sent again (``tracking_resend``).
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from research.errors import UserError
from research.ledger.log import Ledger
from research.patience import patient
from research.planning.tracking_mode import logged_in
from research.store.layout import SweepFolder
from research.store.lock import SweepLock
from research.store.scratch import temporary_folder
from research.text import shell
from research.tracking.resend import copy_without_rows, last_step
from research.tracking.sink import NOT_OURS, unreachable
from research.tracking.sweep_run import has_figures
from research.tracking.trial_runs import Marks, upload_mark
from vae.durable import read_file, replace

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SLOWEST = 100_000  # bytes a second: below that, an upload is not waited for
_DONE, _BEGUN = "uploaded", "begun"


@dataclass(frozen=True)
class Pending:
    """One directory to be uploaded."""

    identity: str
    directory: Path
    project: str
    model: Path | None = None  # the folder whose copy goes with it

    @property
    def bytes(self) -> int:
        """The size of the run's files and of the model's files."""
        places = [self.directory, *([] if self.model is None else [self.model])]
        return sum(path.stat().st_size for place in places for path in place.rglob("*") if path.is_file())


class UploadError(Exception):
    """A run that was not uploaded, and why, in one line."""


def without_figures(sweep_dir: Path) -> list[Path]:
    """Return the sweep and its finalists as far as their own W&B runs lack their figures."""
    sweep = SweepFolder(sweep_dir.absolute())
    begun = [folder for folder in (sweep, sweep.finalists) if folder.wandb_finished.is_dir()]
    return [folder.path for folder in begun if not has_figures(folder)]


def draw_figures(sweep_dir: Path) -> list[str]:
    """Log the figures that the session of an offline sweep left out; return a line for each problem."""
    lines = []
    for folder in without_figures(sweep_dir):
        # In a process of its own, whose output goes to the log of the tracking.
        command = [sys.executable, "-P", "-m", "research.tracking", str(folder), "--mode", "offline"]
        drawn = subprocess.run(  # noqa: S603 - our own interpreter and module
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, errors="replace", check=False
        )
        if drawn.returncode != 0:
            lines += [line for line in drawn.stdout.splitlines() if line.startswith("W&B: ")] or [
                f"W&B: the figures of {folder} could not be drawn, see {SweepFolder(folder).wandb_log}"
            ]
    return lines


def pending(sweep_dir: Path) -> list[Pending]:
    """The finished runs of a sweep, then of its finalists, that were not uploaded, in order of their start.

    Raises:
        UserError: ``sweep_dir`` is no sweep, or was moved since models were logged.

    """
    sweep = SweepFolder(sweep_dir.absolute())
    if not sweep.is_sweep:
        raise UserError(f"{sweep_dir} is not a sweep directory")
    found: list[Pending] = []
    for folder in (sweep, sweep.finalists):
        if not folder.wandb_finished.is_dir():
            continue
        here = list(_of(folder))
        found += sorted(here, key=lambda one: one.directory.name)  # begins with the time of its start
    return found


def _of(sweep: SweepFolder) -> Iterator[Pending]:
    marks = Marks(sweep)
    project = Ledger.open(sweep.path).settings.wandb_project
    for path in sorted(sweep.wandb_finished.glob("*.json")):
        facts = marks.read(path.stem) or {}
        identity, model = facts.get("id"), facts.get("model")
        if not isinstance(identity, str):
            continue
        # An upload that was begun and killed is to be repeated, although another directory came after.
        for directory in marks.directories(identity):
            state = _state(directory)
            if not directory.name.startswith("offline-") or state == _DONE:
                continue
            if directory.name != facts.get("directory") and state != _BEGUN:
                continue
            if isinstance(model, dict) and model.get("sweep_dir") != str(sweep.path):
                raise UserError(
                    f"{sweep.path} was moved since its models were logged, and W&B's files name the old place: "
                    f"{shell('research', 'log', sweep.path)} logs them anew"
                )
            yield Pending(identity, directory, project, sweep.models / path.stem if model else None)


def check_access(first: Pending) -> None:
    """Refuse to begin what can't work.

    Raises:
        UserError: nobody is logged in.
        UploadError: the server does not answer.

    """
    if not logged_in():
        raise UserError("no W&B key: log in with 'wandb login', or set WANDB_API_KEY")
    if (reason := unreachable()) is not None:
        raise UploadError(f"run {first.identity} was not uploaded: {reason}; check the network and WANDB_BASE_URL")


def upload(one: Pending, *, project: str | None, entity: str | None, patience_s: float) -> None:
    """Upload one run and mark it.

    Raises:
        UploadError: it is not, or not wholly, there; it has no mark then.
        UserError: another upload of this sweep is under way, or was killed and its client still sends.

    """
    mark = upload_mark(one.directory)
    mark.parent.mkdir(exist_ok=True)
    with SweepLock(mark.parent) as lock:
        _upload(one, mark, lock, project=project, entity=entity, patience_s=patience_s)


def _upload(
    one: Pending, mark: Path, lock: SweepLock, *, project: str | None, entity: str | None, patience_s: float
) -> None:
    _write(mark, _BEGUN)  # before the first byte: the sink must not take this directory away from now on
    try:
        problem = _sync(one, lock, project=project, entity=entity, seconds=patient(patience_s) + one.bytes / SLOWEST)
    except BaseException:
        _unmark(one.directory)
        raise
    if problem is not None:
        _unmark(one.directory)
        raise UploadError(f"run {one.identity} was not uploaded: {problem}")
    _write(mark, _DONE)


def _sync(one: Pending, lock: SweepLock, *, project: str | None, entity: str | None, seconds: float) -> str | None:
    """Run ``wandb sync`` on one directory; what was wrong, or None."""
    for old in one.directory.glob("*.wandb.synced"):
        old.unlink()
    try:
        there = last_step(one.identity, project=project or one.project, entity=entity, timeout_s=seconds)
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        return f"the server does not say what it has of it ({' '.join(str(error).split())[:200]})"
    with temporary_folder("rs-") as (scratch, held):
        sent = one.directory if there is None else copy_without_rows(one.directory, scratch, until=there)
        command = [sys.executable, "-P", "-m", "wandb", "sync", "--include-synced", str(sent)]
        command += ["--project", project] if project else []
        command += ["--entity", entity] if entity else []
        hidden = {f"WANDB_{name}" for name in NOT_OURS} | {"WANDB_SILENT", "WANDB_QUIET"}
        environment = {name: value for name, value in os.environ.items() if name not in hidden}
        environment |= {"WANDB_DIR": str(scratch), "TMPDIR": str(scratch), "WANDB_ERROR_REPORTING": "false"}
        with subprocess.Popen(  # noqa: S603 - our own interpreter, W&B's own command
            command,
            cwd=scratch,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=environment,
            start_new_session=True,
            pass_fds=(*lock.descriptors, held),  # should this process be killed, both are held until that one ends
        ) as process:
            try:
                output, _ = process.communicate(timeout=seconds)
            except subprocess.TimeoutExpired:
                return f"the server did not take it within {seconds:.0f} s; try again, or with a longer --timeout"
            finally:
                with contextlib.suppress(ProcessLookupError):  # wandb-core is of the same session
                    os.killpg(process.pid, signal.SIGKILL)
        errors = list(_errors(scratch))
        finished = any(sent.glob("*.wandb.synced"))
    if errors:
        return errors[0]
    if process.returncode != 0 or not finished:
        lines = [line.strip() for line in output.splitlines() if line.strip()]
        return lines[-1][:300] if lines else "wandb sync said nothing"
    return None


def _errors(scratch: Path) -> Iterator[str]:
    """Yield the errors in the client's log, one line each. Attempts that it repeated are left out.

    Nor is it one that an older server can't say what it is able to do.
    """
    for log in scratch.rglob("debug-sync*.log"):
        for line in log.read_text(errors="replace").splitlines():
            with contextlib.suppress(ValueError, AttributeError, RecursionError):
                entry = json.loads(line)
                message = str(entry.get("msg", ""))
                if str(entry.get("level", "")).startswith("ERROR") and not message.startswith("featurechecker"):
                    told = f"{message} {entry.get('error', entry.get('status', ''))}"
                    yield " ".join(told.split())[:300]


def _state(directory: Path) -> str | None:
    """``uploaded``, ``begun``, or None; a ``wandb sync`` by hand counts as uploaded."""
    try:
        return str(json.loads(read_file(upload_mark(directory)))["state"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return _DONE if any(directory.glob("*.wandb.synced")) else None


def _write(mark: Path, state: str) -> None:
    replace(mark, json.dumps({"state": state}).encode())


def _unmark(directory: Path) -> None:
    upload_mark(directory).unlink(missing_ok=True)
    for theirs in directory.glob("*.wandb.synced"):  # set although the upload was refused
        theirs.unlink()

"""Sweeps as Ray jobs: begun, found, followed and stopped on a cluster."""

from __future__ import annotations

import asyncio
import itertools
import shlex
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from research.clusters.access import LostConnection, job_client, one_line
from research.clusters.pack import pack
from research.errors import UserError
from research.text import shell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ray.job_submission import JobDetails, JobSubmissionClient

_SWEEP = "research_sweep"  # in a job's metadata: the sweep's name
# Ray's own way to stop a job is SIGTERM to every process of it, and SIGKILL after three seconds. SIGINT is what a
# sweep's W&B process leaves to its driver, and a driver needs the time to bring every view up to the ledger.
_STOPPED_BY = {"RAY_JOB_STOP_SIGNAL": "SIGINT", "RAY_JOB_STOP_WAIT_TIME_S": "600"}
PAUSES = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)  # between attempts to connect again; the last one again and again
GIVE_UP_SECONDS = 1800.0  # without a connection


def submit(cluster: str, name: str, command: Sequence[str], others: Sequence[Path]) -> str:
    """Begin ``research COMMAND`` for the sweep ``name`` as a job on ``cluster``. The job's id.

    The code that runs there, in the driver and in every worker, is this one.

    Raises:
        UserError: the sweep has a driver there already, or something is wrong with ``others``.
        LostConnection: the cluster can't be reached.

    """
    with tempfile.TemporaryDirectory(prefix="research-pack-") as folder:
        pack(Path(folder), others)
        with job_client(cluster) as client:
            before = jobs_of(client, name)
            if (running := next((job for job in before if not job.status.is_terminal()), None)) is not None:
                raise UserError(
                    f"sweep {name!r} runs on {cluster} already, as job {running.submission_id}: "
                    f"{shell('research', 'watch', cluster, name)}"
                )
            try:
                return str(
                    client.submit_job(
                        # -P: the code that was sent, which Ray has put first on the path, and no other folder's.
                        # exec: the job's process is the driver itself, and no shell stands between it and a signal.
                        entrypoint="exec python -P -m research.cli " + shlex.join(command),
                        submission_id=f"{name}-{len(before)}",
                        metadata={_SWEEP: name},
                        runtime_env={"working_dir": folder, "env_vars": dict(_STOPPED_BY)},
                    )
                )
            except RuntimeError as error:
                raise UserError(f"{cluster} takes no job: {one_line(error)}") from None


def find(client: JobSubmissionClient, cluster: str, name: str) -> JobDetails:
    """The newest job of the sweep ``name``.

    Raises:
        UserError: there is none, and which there are.

    """
    if not (found := jobs_of(client, name)):
        known = sorted({told[_SWEEP] for job in client.list_jobs() if _SWEEP in (told := job.metadata or {})})
        raise UserError(
            f"{cluster} knows no sweep {name!r}; "
            + (f"it knows {', '.join(known)}" if known else "it knows none at all")
        )
    return found[-1]


def jobs_of(client: JobSubmissionClient, name: str) -> list[JobDetails]:
    """The jobs that were submitted for the sweep ``name``, oldest first."""
    found = [job for job in client.list_jobs() if (job.metadata or {}).get(_SWEEP) == name]
    return sorted(found, key=lambda job: job.start_time or 0)


def follow(cluster: str, name: str, *, say: Callable[[str], None], after: int = 0) -> int:
    """Print what the sweep's newest job says until it ends. Its exit code: 0 when all went well.

    A lost connection is taken up again. ``after``: so many characters, said before, are left out.

    Raises:
        LostConnection: there was none to begin with, or there is none for longer than is waited for.
        UserError: the cluster doesn't know the sweep (any more).

    """
    printed = after
    job: JobDetails | None = None
    lost_at: float | None = None
    pauses: Iterator[float] = iter(())
    while True:
        try:
            with job_client(cluster) as client:
                found = find(client, cluster, name)
                if job is not None and found.submission_id != job.submission_id:
                    again = shell("research", "watch", cluster, name)
                    raise UserError(f"sweep {name!r} goes on as another job by now: {again}")
                job = found
                number = str(job.submission_id)
                if lost_at is not None:
                    say("connected again")
                lost_at = None
                for piece in _new_text(client, number, printed):
                    printed += len(piece)
                    sys.stdout.write(piece)
                    sys.stdout.flush()
                job = client.get_job_info(number)
                if job.status.is_terminal():
                    # Following may end before a driver's last words are written.
                    sys.stdout.write(client.get_job_logs(number)[printed:])
                    sys.stdout.flush()
                    return _exit_code(job)
            time.sleep(PAUSES[0])  # its log has ended, and its end is not written down yet
        except (LostConnection, OSError, RuntimeError, EOFError) as error:
            now = time.monotonic()
            if job is None:
                raise LostConnection(one_line(error)) from None
            if lost_at is None:
                lost_at, pauses = now, itertools.chain(PAUSES, itertools.repeat(PAUSES[-1]))
                say(f"the connection to {cluster} is lost; the sweep goes on. Trying again ({one_line(error)[:200]})")
            elif now - lost_at > GIVE_UP_SECONDS:
                raise LostConnection(one_line(error)) from None
            time.sleep(next(pauses))


def stop(cluster: str, name: str) -> int | None:
    """Ask the sweep's driver to stop, as Ctrl-C does. How many characters it had said; None where nothing of it ran."""
    with job_client(cluster) as client:
        job = find(client, cluster, name)
        if job.status.is_terminal():
            return None
        said = len(client.get_job_logs(str(job.submission_id)))
        return said if client.stop_job(str(job.submission_id)) else None


def _new_text(client: JobSubmissionClient, job: str, printed: int) -> Iterator[str]:
    """Yield the job's output from character ``printed`` on. Each connection begins again at the start of the output."""
    from aiohttp import ClientError  # noqa: PLC0415 - in the extra "cluster"

    pieces = client.tail_job_logs(job)

    async def following() -> str | None:
        return await anext(pieces, None)

    seen = 0
    with asyncio.Runner() as runner:
        while True:
            try:
                piece = runner.run(following())
            except ClientError as error:
                raise LostConnection(one_line(error) or type(error).__name__) from None
            if piece is None:
                return
            fresh = piece[max(0, printed - seen) :]
            seen += len(piece)
            if fresh:
                yield fresh


def _exit_code(job: JobDetails) -> int:
    if job.status == "SUCCEEDED":
        return 0
    if job.driver_exit_code is not None:
        return int(job.driver_exit_code) if job.driver_exit_code >= 0 else 128 - int(job.driver_exit_code)
    return 130 if job.status == "STOPPED" else 1

"""Sweeps as Ray jobs on a cluster: submit, find, follow and stop them."""

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
# Ray stops a job with SIGTERM to each of its processes, and with SIGKILL three seconds later. A driver needs more time
# to update its views. We send SIGINT instead, which the W&B process of a sweep ignores.
_STOPPED_BY = {"RAY_JOB_STOP_SIGNAL": "SIGINT", "RAY_JOB_STOP_WAIT_TIME_S": "600"}
PAUSES = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)  # seconds between attempts to reconnect; the last one repeats
GIVE_UP_SECONDS = 1800.0  # without a connection


def submit(cluster: str, name: str, command: Sequence[str], others: Sequence[Path]) -> str:
    """Start ``research COMMAND`` for the sweep ``name`` as a job on ``cluster``, and return the id of the job.

    The driver and all workers run the code of this checkout.

    Raises:
        UserError: the sweep already has a driver there, or ``others`` cannot be sent.
        LostConnection: the cluster cannot be reached.

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
                        # -P keeps the working directory off the path, where Ray has put the code that was sent first.
                        # exec makes the driver the process of the job, so that signals reach it and not a shell.
                        entrypoint="exec python -P -m research.cli " + shlex.join(command),
                        submission_id=f"{name}-{len(before)}",
                        metadata={_SWEEP: name},
                        runtime_env={"working_dir": folder, "env_vars": dict(_STOPPED_BY)},
                    )
                )
            except RuntimeError as error:
                raise UserError(f"{cluster} takes no job: {one_line(error)}") from None


def find(client: JobSubmissionClient, cluster: str, name: str) -> JobDetails:
    """Return the newest job of the sweep ``name``.

    Raises:
        UserError: there is none; the message lists the sweeps that the cluster knows.

    """
    if not (found := jobs_of(client, name)):
        known = sorted({told[_SWEEP] for job in client.list_jobs() if _SWEEP in (told := job.metadata or {})})
        raise UserError(
            f"{cluster} knows no sweep {name!r}; "
            + (f"it knows {', '.join(known)}" if known else "it knows none at all")
        )
    return found[-1]


def jobs_of(client: JobSubmissionClient, name: str) -> list[JobDetails]:
    """Return the jobs that were submitted for the sweep ``name``, the oldest first."""
    found = [job for job in client.list_jobs() if (job.metadata or {}).get(_SWEEP) == name]
    return sorted(found, key=lambda job: job.start_time or 0)


def follow(cluster: str, name: str, *, say: Callable[[str], None], after: int = 0) -> int:
    """Print the output of the sweep's newest job until the job ends, and return its exit code.

    A lost connection is made again. The first ``after`` characters of the output are left out.

    Raises:
        LostConnection: the first connection failed, or a lost one could not be made again in time.
        UserError: the cluster does not know the sweep (any more).

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
                    # The stream may end before the last output of the driver is written.
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
    """Ask the driver of the sweep to stop, like Ctrl-C. Return the length of its output so far; None if no job runs."""
    with job_client(cluster) as client:
        job = find(client, cluster, name)
        if job.status.is_terminal():
            return None
        said = len(client.get_job_logs(str(job.submission_id)))
        return said if client.stop_job(str(job.submission_id)) else None


def _new_text(client: JobSubmissionClient, job: str, printed: int) -> Iterator[str]:
    """Yield the output of the job from character ``printed`` on. Each connection starts at its beginning."""
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

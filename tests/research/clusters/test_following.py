"""A sweep on a cluster, followed; its job server is a stand-in (a real one: tests/integration/test_cluster.py)."""

from __future__ import annotations

from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from research.clusters import jobs
from research.clusters.access import LostConnection

pytestmark = pytest.mark.usefixtures("cluster_file")


class Server:
    """A job server that says ``text`` in pieces and loses the connection after each number of pieces in ``cuts``."""

    def __init__(self, pieces, cuts, status="SUCCEEDED", code=0):
        self.pieces, self.cuts = pieces, list(cuts)
        self.status, self.code = status, code
        self.visits = 0

    def list_jobs(self):
        return [self.get_job_info("n-0")]

    def get_job_info(self, job):
        from ray.job_submission import JobStatus

        return SimpleNamespace(
            submission_id="n-0", status=JobStatus(self.status), metadata={"research_sweep": "n"}, start_time=1,
            driver_exit_code=self.code,
        )  # fmt: skip

    def get_job_logs(self, job):
        return "".join(self.pieces)

    async def tail_job_logs(self, job):
        self.visits += 1
        for count, piece in enumerate(self.pieces):
            if self.cuts and count == self.cuts[0]:
                self.cuts.pop(0)
                raise RuntimeError("WebSocket connection closed unexpectedly with close code 1006")
            yield piece


@pytest.fixture
def served(monkeypatch):
    """Follow a stand-in for a job server, without waiting between attempts."""

    def serve(server, down=0):
        attempts = iter([False] * down)

        @contextmanager
        def client(cluster):
            if server.visits and not next(attempts, True):
                raise LostConnection("no answer")
            yield server

        monkeypatch.setattr(jobs, "job_client", client)
        monkeypatch.setattr(jobs, "PAUSES", (0.0,))
        return server

    return serve


@pytest.mark.fault("26 connection to a cluster lost")
@pytest.mark.parametrize(("cuts", "down"), [([1], 0), ([0, 2, 1], 3)])
def test_every_piece_is_said_once(served, capsys, tally, cuts, down):
    """However often the connection is lost, and wherever: the text is whole, in order, and nothing comes twice."""
    pieces = ["one\ntwo\n", "three", "\nfour\n"]
    server = served(Server(pieces, cuts), down)
    notes = []

    assert jobs.follow("c.yaml", "n", say=notes.append) == 0
    assert capsys.readouterr().out == "".join(pieces)
    assert server.visits == len(cuts) + 1
    assert sum("is lost; the sweep goes on" in note for note in notes) == len(cuts)
    tally.happened(len(cuts))


def test_no_connection_to_begin_with(research, monkeypatch):
    """Nothing to wait for: said at once, with how to try again."""

    @contextmanager
    def nobody(cluster):
        raise LostConnection("nobody there")
        yield

    monkeypatch.setattr(jobs, "job_client", nobody)
    code, said = research("watch", "c.yaml", "n")
    assert code == 1
    assert "nobody there" in said
    assert "research watch c.yaml n" in said

    code, said = research("submit", "c.yaml", "vae", "--concurrent", "2")
    assert code == 2
    assert "c.yaml can't be reached: nobody there" in said


@pytest.mark.parametrize(
    ("status", "driver", "expected"),
    [("SUCCEEDED", 0, 0), ("FAILED", 1, 1), ("FAILED", -9, 137), ("STOPPED", None, 130), ("FAILED", None, 1)],
)
def test_the_sweeps_exit_code_is_the_verbs(served, research, status, driver, expected):
    """How the driver ended there is how watch ends here; who didn't end well is told how to go on."""
    served(Server(["hello\n"], [], status, driver))
    code, said = research("watch", "c.yaml", "n")

    assert code == expected
    assert "hello" in said
    assert ("--resume n" in said) == (expected != 0)


def test_a_sweep_that_was_resumed_meanwhile(served, research):
    """The job that was followed is not the newest any more: said, and nothing of the other is mixed in."""
    server = Server(["one\n"], [1])
    first = server.list_jobs

    def later():
        return [*first(), SimpleNamespace(**vars(first()[0]) | {"submission_id": "n-1", "start_time": 2})]

    async def lost(job):
        yield "one\n"
        server.list_jobs = later
        raise RuntimeError("closed")

    server.tail_job_logs = lost
    served(server)
    code, said = research("watch", "c.yaml", "n")

    assert code == 2
    assert said.count("one") == 1
    assert "goes on as another job" in said


def test_an_unknown_sweep(served, research):
    """One line, with those that the cluster knows."""
    served(Server([], []))
    code, said = research("watch", "c.yaml", "m")

    assert code == 2
    assert "no sweep 'm'; it knows n" in said


def test_a_sweep_that_runs_is_not_begun_again(served, research):
    """A second driver is refused before it is sent."""
    served(Server([], [], "RUNNING"))
    code, said = research("submit", "c.yaml", "vae", "--concurrent", "2", "--name", "n")

    assert code == 2
    assert "runs on c.yaml already" in said


def test_leaving(served, research, monkeypatch):
    """Ctrl-C while following: the sweep is as it was, and how to come back or stop it is said. Exit code 130."""

    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(jobs, "follow", interrupted)
    code, said = research("watch", "c.yaml", "n")

    assert code == 130
    assert "research watch c.yaml n" in said
    assert "research stop c.yaml n" in said

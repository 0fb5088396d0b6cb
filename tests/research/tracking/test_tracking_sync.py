"""``research sync``: W&B's own client uploads, to a server of ours on this machine that keeps what it is sent."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from research.errors import UserError
from research.ledger.settings import Parent
from research.tracking.sync import pending
from tests.support.places import ROOT
from tests.support.synthetic import new_ledger, row, trial
from tests.support.wandb_help import append_drawn, append_trial, keep_model
from tests.support.wandb_server import start_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from research.tracking.sink import Sink
    from tests.support.wandb_server import Received

    Start = Callable[..., Sink]

KEY = "canary" * 6 + "abcd"

pytestmark = pytest.mark.usefixtures("home")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Received]:
    """W&B's service, as much as is needed; who runs ``research`` is logged in there."""
    running, received = start_server()
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{running.server_port}")
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    yield received
    running.shutdown()
    running.server_close()


def sync(directory: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the verb to its end."""
    return subprocess.run(
        [sys.executable, "-m", "research.cli", "sync", str(directory), *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def finished(tmp_path: Path, start: Start, trials: int = 1) -> Path:
    """A sweep whose runs were written offline, one of them still running."""
    sweep = tmp_path / "sweep"
    ledger = new_ledger(sweep)
    for number in range(trials):
        append_trial(ledger, number, 3)
    append_trial(ledger, trials, 1, "continue")
    keep_model(ledger, 0)
    sink = start(sweep)
    assert sink.close() == []
    return sweep


@pytest.mark.slow
def test_everything_is_uploaded_once_and_in_order(tmp_path: Path, start: Start, server: Received) -> None:
    """Trials, the model, the sweep's run, the finalists; a second time nothing; later trials alone are added."""
    sweep = finished(tmp_path, start, 2)
    identity = read_identity(sweep)
    child = new_ledger(sweep / "finalists", name="quick-finalists", parent=Parent(name="quick", identity=identity))
    child.append(trial(0, parent_trial=0))
    child.append(row(0, 1, -88.0, "complete"))
    assert start(sweep / "finalists", "offline").close() == []
    listed = sync(sweep, "--dry-run")
    assert (listed.returncode, listed.stdout.count("would upload")) == (0, 5)
    assert server.calls == []
    done = sync(sweep, "--project", "elsewhere")
    assert done.returncode == 0, done.stderr
    ids = server.upserted()
    assert ids == [line.split()[1] for line in done.stdout.splitlines()]
    assert set(ids[:3]) == {f"quick-{identity[:8]}-{tail}" for tail in ("0000", "0001", "sweep")}
    assert [name.startswith("quick-finalists-") for name in ids[3:]] == [True, True]
    for number in (0, 1):
        assert [line["_step"] for line in server.history(f"quick-{identity[:8]}-000{number}")] == [0, 1, 2]
    upserts = [body for name, body in server.calls if name == "UpsertBucket"]
    assert {body["variables"]["project"] for body in upserts if body["variables"].get("project")} == {"elsewhere"}
    (artifact,) = [
        body["variables"]
        for name, body in server.calls
        if name == "CreateArtifact" and "trial-0000" in json.dumps(body["variables"])
    ]
    assert "rank-1" in json.dumps(artifact)
    assert b"weights of 0" in server.files.values()
    calls = len(server.calls)
    again = sync(sweep)
    assert (again.returncode, len(server.calls)) == (0, calls)
    assert again.stdout.startswith("nothing to upload")
    assert not any(b"canary" in path.read_bytes() for path in sweep.rglob("*") if path.is_file())


@pytest.mark.slow
def test_sync_draws_the_figures_that_an_offline_session_left_out(
    tmp_path: Path, start: Start, server: Received
) -> None:
    """They are no problem of the session; they are drawn once, before anything is uploaded, and are uploaded."""
    sweep = tmp_path / "sweep"
    ledger = new_ledger(sweep)
    for number in range(5):
        append_drawn(ledger, number, -90.0 - number**2)
    assert start(sweep).close() == []
    listed = sync(sweep, "--dry-run")
    assert listed.stdout.startswith("would draw the figures of ")
    done = sync(sweep)
    assert done.returncode == 0, done.stderr
    (history,) = server.history(f"quick-{ledger.identity[:8]}-sweep")
    assert any(name.startswith("optuna/") for name in history)
    assert "would draw" not in sync(sweep, "--dry-run").stdout


def read_identity(sweep: Path) -> str:
    """Of a sweep's ledger."""
    return json.loads((sweep / "ledger" / "00000000.json").read_text())["sha256"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("part", "status"), [("graphql", 401), ("file_stream", 403), ("upload", 403), ("graphql", 500)]
)
def test_a_refused_upload_has_no_mark_and_is_named(
    tmp_path: Path, start: Start, server: Received, part: str, status: int
) -> None:
    """Also where W&B's client calls it synced, and where it would try for hours; once mended, it goes through."""
    sweep = finished(tmp_path, start)
    server.fail[part] = status
    begin = time.monotonic()
    refused = sync(sweep, "--timeout", "6")
    assert time.monotonic() - begin < 60
    assert refused.returncode == 1
    assert len(refused.stderr.splitlines()) == 1, refused.stderr
    assert f"run quick-{read_identity(sweep)[:8]}-" in refused.stderr
    assert f"research sync {sweep}" in refused.stderr
    assert KEY not in refused.stderr + refused.stdout
    assert list((sweep / "wandb" / "uploaded").glob("*.json")) == []
    assert list(sweep.glob("wandb/offline-run-*/*.synced")) == []
    server.fail.clear()
    assert sync(sweep).returncode == 0
    assert len(list((sweep / "wandb" / "uploaded").glob("*.json"))) == 2


def test_without_a_key_nothing_is_begun(tmp_path: Path, start: Start) -> None:
    """One line that says how to log in, exit code 2."""
    sweep = finished(tmp_path, start)
    done = sync(sweep)
    assert done.returncode == 2
    assert done.stderr.splitlines() == ["error: no W&B key: log in with 'wandb login', or set WANDB_API_KEY"]
    assert not (sweep / "wandb" / "uploaded").exists()


@pytest.mark.slow
def test_no_server_is_told_within_seconds(tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """W&B's client alone would try for hours."""
    sweep = finished(tmp_path, start)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    begin = time.monotonic()
    done = sync(sweep)
    assert time.monotonic() - begin < 60
    assert done.returncode == 1
    assert "http://127.0.0.1:1 can't be reached" in done.stderr
    assert f"quick-{read_identity(sweep)[:8]}-" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.slow
def test_a_sweep_that_was_moved_is_refused(tmp_path: Path, start: Start) -> None:
    """W&B's record of a model names files by absolute path; the line says how to write it anew."""
    sweep = finished(tmp_path, start)
    assert len(pending(sweep)) == 2
    sweep.rename(tmp_path / "moved")
    with pytest.raises(UserError, match=r"was moved.*research log"):
        pending(tmp_path / "moved")
    assert start(tmp_path / "moved").close() == []
    assert len(pending(tmp_path / "moved")) == 2
    with pytest.raises(UserError, match="not a sweep directory"):
        pending(tmp_path)


@pytest.mark.faults
def test_an_upload_that_was_cut_short_is_repeated(tmp_path: Path, start: Start) -> None:
    """What was begun and never ended is not done, and the sink leaves its directory alone."""
    sweep = finished(tmp_path, start)
    (first, *_) = pending(sweep)
    mark = sweep / "wandb" / "uploaded" / f"{first.directory.name}.json"
    mark.parent.mkdir()
    mark.write_text('{"state": "begun"}')
    assert first in pending(sweep)
    mark.write_text('{"state": "uploaded"}')
    assert first not in pending(sweep)

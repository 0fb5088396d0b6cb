"""Names that are taken, and Rays that are not ours: dead, foreign, of another version, left by drivers that died."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
from contextlib import contextmanager

import pytest

from research.ledger.log import Ledger
from tests.support.drivers import start
from tests.support.verbs import deterministic, environment

pytestmark = pytest.mark.timeout(600)
FAULT = "25 taken names, strange Rays"
OTHER_VERSION = """
import json, sys, tempfile, shutil
import ray
ray.__version__ = "2.53.0"  # what a cluster of that version would have written into its head
folder = tempfile.mkdtemp(prefix="old-")
ray.init(address="local", num_cpus=1, include_dashboard=False, _temp_dir=folder, object_store_memory=80 * 1024 * 1024)
print(json.dumps(ray.get_runtime_context().gcs_address), flush=True)
sys.stdin.read()
ray.shutdown()
shutil.rmtree(folder, ignore_errors=True)
"""


@contextmanager
def listener():
    """An address at which somebody listens and says nothing, and the list of who called."""
    calls: list[object] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        held = []

        def serve() -> None:
            try:
                while True:
                    connection, caller = server.accept()
                    held.append(connection)
                    calls.append(caller)
            except OSError:
                return

        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}", calls
        server.shutdown(socket.SHUT_RDWR)
        for connection in held:
            connection.close()


@contextmanager
def nobody():
    """An address at which nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # bound but not listening: nobody else gets the port meanwhile
        yield f"127.0.0.1:{bound.getsockname()[1]}", []


@pytest.mark.faults
@pytest.mark.long
@pytest.mark.fault(FAULT)
@pytest.mark.parametrize("stranger", [listener, nobody], ids=["foreign", "dead"])
def test_a_ray_address_in_the_environment_is_never_joined(small_space, tmp_path, tally, stranger):
    """RAY_ADDRESS of somebody else's cluster, or of none any more: nobody calls there, the sweep has a Ray of its own."""
    with stranger() as (address, calls):
        driver = start(
            tmp_path,
            *deterministic(small_space, tmp_path, "own"),
            "--trials",
            "1",
            "--epochs",
            "1",
            RAY_ADDRESS=address,
        )
        assert driver.wait() == 0, driver.output
        assert calls == []
    tally.happened()
    assert Ledger.open(tmp_path / "own").trials[0].status == "COMPLETE"
    assert driver.left_behind() == {}


@pytest.mark.fault(FAULT)
def test_an_address_where_nobody_listens_is_one_line(small_space, tmp_path, tally):
    """``--address`` of a cluster that is gone: exit code 2 with the remedy, and no sweep begun."""
    with nobody() as (address, _):
        driver = start(tmp_path, *deterministic(small_space, tmp_path, "none"), "--address", address)
        assert driver.wait() == 2, driver.output
    tally.happened()
    (line,) = driver.output.strip().splitlines()
    assert "no Ray cluster answers" in line
    assert address in line
    assert not (tmp_path / "none").exists()


@pytest.mark.faults
@pytest.mark.long
@pytest.mark.fault(FAULT)
def test_an_address_of_something_else_is_refused_in_time(small_space, tmp_path, tally):
    """``--address`` of something that listens and is no Ray: not a hang; exit code 2, the address named."""
    with listener() as (address, calls):
        driver = start(tmp_path, *deterministic(small_space, tmp_path, "else"), "--address", address)
        assert driver.wait(400) == 2, driver.output
        assert calls, "somebody called"
    tally.happened()
    assert address in driver.output.strip().splitlines()[-1]
    assert "Traceback" not in driver.output
    assert driver.left_behind() == {}


@pytest.mark.faults
@pytest.mark.long
@pytest.mark.fault(FAULT)
def test_a_cluster_of_another_version_is_one_line(small_space, tmp_path, tally):
    """A head that says it is Ray 2.53: exit code 2, its version named, no sweep begun."""
    with subprocess.Popen(
        [sys.executable, "-c", OTHER_VERSION],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment(),
    ) as head:
        try:
            address = json.loads(head.stdout.readline())
            arguments = [*deterministic(small_space, tmp_path, "old"), "--trials", "1", "--epochs", "1"]
            driver = start(tmp_path, *arguments, "--address", address)
            assert driver.wait() == 2, driver.output
            head.stdin.close()
            head.wait(60)
        finally:
            head.kill()
    tally.happened()
    line = driver.output.strip().splitlines()[-1]
    assert line.startswith("error: ")
    assert "2.53.0" in line
    assert "Traceback" not in driver.output
    assert not (tmp_path / "old").exists()


@pytest.mark.fault(FAULT)
def test_a_taken_name_is_refused(small_space, tmp_path, tally):
    """A sweep of that name exists: exit code 2 with the two ways on, and not a byte of it changed."""
    (tmp_path / "taken" / "ledger").mkdir(parents=True)
    driver = start(tmp_path, *deterministic(small_space, tmp_path, "taken"))
    assert driver.wait() == 2, driver.output
    tally.happened()
    (line,) = driver.output.strip().splitlines()
    assert "exists already" in line
    assert "research resume" in line
    assert "--name" in line
    assert list((tmp_path / "taken").rglob("*")) == [tmp_path / "taken" / "ledger"]


@pytest.mark.fault(FAULT)
def test_folders_of_dead_drivers_are_removed_and_no_others(tmp_path, monkeypatch, tally):
    """Of a process that is gone: removed. Of one that lives, or lives where its number is not ours: kept."""
    from research.on_ray.local import remove_leftovers

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with subprocess.Popen(["true"]) as process:
        process.wait()
    dead, living, elsewhere = f"rr-{process.pid}-a", f"rr-{os.getpid()}-b", f"rr-{process.pid}-c"
    for name in (dead, living, elsewhere, "rr-notes", "ray"):
        (tmp_path / name / "session").mkdir(parents=True)
    held = os.open(tmp_path / elsewhere, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)  # as a driver in another container holds its own
    tally.happened()
    remove_leftovers()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([living, elsewhere, "rr-notes", "ray"])
    os.close(held)
    remove_leftovers()
    assert not (tmp_path / elsewhere).exists()

"""The parts of Ray that its start is changed in are as they were, and what a try left is found."""

from __future__ import annotations

import contextlib
import inspect
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ray._private import node, services, utils, worker

from research import processes
from research.driver.engine import StoppedWhileStartingError
from research.errors import UserError
from research.on_ray import starting
from research.patience import busyness, patient


def test_node_is_made_and_waited_for_as_the_code_expects():
    """Another Ray may build its node elsewhere: then starting.py has to be read again."""
    started = inspect.getsource(node.Node.__init__)
    assert "raylet_start_wait_time_s = 30" in started
    assert started.index("self.start_ray_processes()") < started.index("raylet_start_wait_time_s = 30")
    assert "ray._private.node.Node(" in inspect.getsource(worker.init)
    assert "wait_for_persisted_port(" in inspect.getsource(node.Node.start_gcs_server)
    for name in ("start_api_server", "start_monitor", "start_log_monitor", "start_ray_processes", "dead_processes"):
        assert callable(getattr(node.Node, name)), name
    assert callable(node.get_port_filename)
    assert callable(services.get_node)
    assert callable(utils.get_dashboard_dependency_error)


def test_own_node_is_put_back():
    """After the start, whatever came of it, Ray is as it was imported."""
    before = node.Node, node.wait_for_persisted_port, utils.get_dashboard_dependency_error
    with contextlib.suppress(KeyError), starting._own_node(1.0, lambda: None):
        assert issubclass(node.Node, starting._OwnNode)
        raise KeyError
    assert (node.Node, node.wait_for_persisted_port, utils.get_dashboard_dependency_error) == before


@pytest.fixture
def ray_that(monkeypatch):
    """Let ray.init end in these errors, one for each try; None is a success."""

    def script(*errors):
        left = list(errors)

        def init(**_):
            error = left.pop(0)
            if error is not None:
                raise error

        monkeypatch.setattr(starting.ray, "init", init)
        return left

    return script


def test_start_ray_second_try_that_works_says_one_line(ray_that, tmp_path, capsys):
    """One line for the try that failed."""
    left = ray_that(RuntimeError("no\nGCS"), None, None)
    starting.start_ray(tmp_path / "f", None)
    assert capsys.readouterr().err == "Ray did not start (no GCS): trying again (2 of 3)\n"
    assert left == [None]


def test_start_ray_three_tries_are_one_line_with_the_remedy(ray_that, tmp_path):
    """The last reason, the load and what to do."""
    ray_that(*[Exception("The current node timed out during startup.")] * 3)
    with pytest.raises(UserError, match=r"did not start in 3 tries \(The current node.*load is .*wait until") as caught:
        starting.start_ray(tmp_path / "f", None)
    assert "\n" not in str(caught.value)


class Asked:
    """Somebody asked to stop by Ctrl-C."""

    signal = 2
    lost = None
    how_to_go_on = "research resume s"


def test_start_ray_asked_to_stop_tries_no_more(ray_that, tmp_path):
    """A signal that came while Ray was failing ends it."""
    left = ray_that(RuntimeError("no"), None)
    with pytest.raises(StoppedWhileStartingError):
        starting.start_ray(tmp_path / "f", Asked())
    assert left == [None]


@pytest.mark.parametrize("error", [ValueError("num_cpus"), UserError("x"), OSError(28, "No space left")])
def test_start_ray_mistake_is_not_tried_again(ray_that, tmp_path, error):
    """A wrong argument stays wrong, and a full disk full."""
    left = ray_that(error, None)
    with pytest.raises(type(error)):
        starting.start_ray(tmp_path / "f", None)
    assert left == [None]


def test_remove_started_ends_named_processes_and_their_children(tmp_path):
    """A process that names the folder goes with what it has started; others stay."""
    folder = tmp_path / "rr-1"
    folder.mkdir()
    script = "import subprocess, sys, time; subprocess.Popen(['sleep', '300']); print('x', flush=True); time.sleep(300)"
    command = [sys.executable, "-P", "-c", script]
    ours = subprocess.Popen([*command, str(folder)], stdout=subprocess.PIPE)
    other = subprocess.Popen([*command, str(tmp_path / "other")], stdout=subprocess.PIPE)
    for process in (ours, other):
        assert process.stdout.readline() == b"x\n"
    (child,) = (pid for pid in processes.naming(folder) if pid != ours.pid)
    starting.remove_started(folder)
    assert not folder.exists()
    until = time.monotonic() + 10.0
    while running(child):
        assert time.monotonic() < until
        time.sleep(0.05)
    assert processes.naming(folder) == set()
    assert other.poll() is None
    starting.remove_started(tmp_path / "other")
    for process in (ours, other):
        process.stdout.close()
        process.wait()


def running(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    with contextlib.suppress(FileNotFoundError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


def test_patient_deadline_grows_with_the_load(monkeypatch):
    """Up to four times; on a quiet machine it is what it was."""
    cores = len(os.sched_getaffinity(0))
    for load, seconds in ((0.0, 10.0), (cores * 1.0, 10.0), (cores * 2.0, 20.0), (cores * 30.0, 40.0)):
        monkeypatch.setattr(os, "getloadavg", lambda load=load: (load, 0.0, 0.0))
        assert patient(10.0) == pytest.approx(seconds)
        assert busyness() == pytest.approx(load / cores)

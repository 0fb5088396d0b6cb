"""Whole nodes killed: a Ray cluster of two on this machine, in a process of its own, and a driver's own Ray."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest

from research.ledger.log import Ledger
from tests.support.drivers import LASTING, MARK, await_that, busy, kill_node, kill_process, start
from tests.support.places import ROOT
from tests.support.verbs import deterministic, environment, losses, told

pytestmark = [pytest.mark.faults, pytest.mark.long, pytest.mark.timeout(900)]
BOUND_S = 120  # for the driver to find out that nothing answers any more, and to leave


@pytest.fixture
def cluster():
    """Address and pids of two nodes with a CPU each; whatever a test left of them is ended."""
    command = [sys.executable, "-m", "tests.support.two_nodes"]
    with subprocess.Popen(
        command,
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment() | {MARK: "two nodes"},
    ) as process:
        try:
            yield json.loads(process.stdout.readline())
            process.stdin.close()
            process.wait(60)
        finally:
            process.kill()


@pytest.mark.fault("3 node killed")
def test_trials_of_a_killed_node_move_to_the_other(cluster, lasting_twin, small_space, tmp_path, tally):
    """SIGKILL of one of two raylets: its trial goes on elsewhere from its checkpoint, all equal to the twin."""
    driver = start(tmp_path, *deterministic(small_space, tmp_path, "moved"), *LASTING, "--address", cluster["address"])
    await_that(driver, tmp_path / "moved", lambda ledger: len(busy(ledger)) == 2)
    kill_node(cluster["other"]["raylet"])
    tally.happened()
    assert driver.wait(400) == 0, driver.output

    ledger = Ledger.open(tmp_path / "moved")
    tally.losing(losses(ledger, lasting_twin))
    assert told(ledger) == told(lasting_twin)
    assert len(ledger.sessions) == 1
    assert any(view.attempt > 0 for view in ledger.trials.values()), "the node had a trial"


@pytest.mark.fault("3 node killed")
@pytest.mark.parametrize("lost", ["both nodes", "head"])
def test_a_cluster_that_is_gone_is_a_clean_failure(cluster, lasting_twin, small_space, tmp_path, tally, lost):
    """Every raylet killed, or the head: exit code 1 and the resume command within bounds; resumed, equal to the twin."""
    driver = start(tmp_path, *deterministic(small_space, tmp_path, "gone"), *LASTING, "--address", cluster["address"])
    await_that(driver, tmp_path / "gone", lambda ledger: len(busy(ledger)) == 2)
    began = time.monotonic()
    for which in ("other", "head") if lost == "both nodes" else ("head",):
        kill_node(cluster[which]["raylet"])
        tally.happened()
    if lost == "head":
        kill_process(cluster["head"]["gcs_server"])
    assert driver.wait(BOUND_S) == 1, driver.output
    print(f"{lost}: left after {time.monotonic() - began:.0f} s")  # noqa: T201 - pytest shows it where asked

    assert driver.says_how_to_go_on(tmp_path / "gone"), driver.output
    ledger = Ledger.open(tmp_path / "gone")
    assert any(view.status == "RUNNING" for view in ledger.trials.values())
    assert not any(view.status == "FAIL" for view in ledger.trials.values())
    resumed = start(tmp_path, "resume", tmp_path / "gone")
    assert resumed.wait() == 0, resumed.output
    ledger.refresh()
    tally.losing(losses(ledger, lasting_twin))
    assert told(ledger) == told(lasting_twin)


@pytest.mark.fault("3 node killed")
@pytest.mark.parametrize("part", ["raylet", "gcs_server"])
def test_a_driver_whose_own_ray_dies_is_a_clean_failure(lasting_twin, small_space, tmp_path, tally, part):
    """SIGKILL of the raylet or the head of a driver's own Ray: the same, and no process is left."""
    driver = start(tmp_path, *deterministic(small_space, tmp_path, "own"), *LASTING, "--wandb", "offline")
    await_that(driver, tmp_path / "own", lambda ledger: len(busy(ledger)) == 2)
    kill_node(driver.part_of_ray("raylet"), first=driver.part_of_ray(part))
    tally.happened()
    assert driver.wait(BOUND_S) == 1, driver.output

    assert driver.says_how_to_go_on(tmp_path / "own"), driver.output
    assert driver.left_behind() == {}
    resumed = start(tmp_path, "resume", tmp_path / "own")
    assert resumed.wait() == 0, resumed.output
    ledger = Ledger.open(tmp_path / "own")
    tally.losing(losses(ledger, lasting_twin))
    assert told(ledger) == told(lasting_twin)

"""Trials' processes killed in the middle of their epochs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.support.drivers import LASTING, await_that, busy, kill_process, rows, seeded, start
from tests.support.verbs import deterministic, losses, told

if TYPE_CHECKING:
    from research.ledger.log import Ledger
    from tests.support.drivers import Driver

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]
KILLS = 6


def busy_worker(driver: Driver, ledger: Ledger) -> int | None:
    """The process of a trial that has rows and goes on, if there is one just now."""
    ledger.refresh()
    alive = driver.others("ray::")
    pids = (view.rows[max(view.rows)].worker["pid"] for view in busy(ledger))
    return next((pid for pid in pids if pid in alive), None)


@pytest.mark.fault("1 worker killed")
def test_workers_killed_in_mid_epoch_continue_to_the_same_curves(lasting_twin, small_space, tmp_path, tally):
    """SIGKILL of six trial processes at seeded moments: retried from their checkpoints, all equal to the twin."""
    moments = seeded("workers")
    driver = start(tmp_path, *deterministic(small_space, tmp_path, "workers"), *LASTING)
    # In the first half: while a killed worker is replaced the other goes on, and there has to be somebody to kill.
    for moment in sorted(moments.sample(range(1, rows(lasting_twin) // 2), KILLS)):
        ledger = await_that(driver, tmp_path / "workers", lambda ledger, moment=moment: rows(ledger) >= moment)
        time.sleep(moments.uniform(0, 0.1))
        while (pid := busy_worker(driver, ledger)) is None:
            assert driver.running(), driver.output
            time.sleep(0.005)
        kill_process(pid)
        tally.happened()
    assert driver.wait() == 0, driver.output
    ledger.refresh()
    tally.losing(losses(ledger, lasting_twin))

    assert sum(view.attempt for view in ledger.trials.values()) >= 1, "a loss was written down"
    assert len(ledger.sessions) == 1
    assert told(ledger) == told(lasting_twin)
    assert driver.left_behind() == {}

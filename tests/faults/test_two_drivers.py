"""Two drivers where there may be one, and what a dead one leaves in the way."""

from __future__ import annotations

import json
import os
import signal
import time

import pytest

from research.ledger.log import Ledger
from tests.support.drivers import Driver, await_that, rows, start
from tests.support.verbs import deterministic, losses, told

pytestmark = [pytest.mark.faults, pytest.mark.long, pytest.mark.timeout(900)]
FAULT = "15 two drivers at once"


def first_to_end(both: list[Driver]) -> list[Driver]:
    """Which of two ends first, and the other."""
    while all(driver.running() for driver in both):
        time.sleep(0.02)
    return sorted(both, key=Driver.running)


@pytest.mark.fault(FAULT)
def test_of_two_at_once_one_drives_and_the_other_is_refused(twin, small_space, tmp_path, tally):
    """Begun, then resumed, in the same instant: one line and exit code 2 for one of them; a dead holder's lock is taken."""
    directory = tmp_path / "one"
    both = [start(tmp_path, *deterministic(small_space, tmp_path, "one")) for _ in range(2)]
    loser, winner = first_to_end(both)
    assert loser.wait(300) == 2, loser.output
    assert "exists already" in loser.output.strip().splitlines()[-1]
    assert "Traceback" not in loser.output
    tally.happened()

    await_that(winner, directory, lambda ledger: rows(ledger) >= 4)
    os.kill(winner.pid, signal.SIGSTOP)  # so that it is still there when the third has started, however long that takes
    third = start(tmp_path, "resume", directory)
    assert third.wait(300) == 2, third.output
    assert f"in use by process {winner.pid}" in third.output
    tally.happened()

    winner.kill()
    assert json.loads((directory / "lock").read_text())["pid"] == winner.pid, "its lock still names it"
    both = [start(tmp_path, "resume", directory) for _ in range(2)]
    loser, winner = first_to_end(both)
    assert loser.wait(300) == 2, loser.output
    assert "in use by" in loser.output
    tally.happened()
    assert winner.wait() == 0, winner.output

    ledger = Ledger.open(directory)
    tally.losing(losses(ledger, twin))
    assert told(ledger) == told(twin)
    assert len(ledger.sessions) == 2
    for driver in (*both, third):
        assert driver.left_behind() == {}

"""A bad night in small: workers, drivers and Ray itself killed all through a sweep of sixty trials."""

from __future__ import annotations

import time

import pytest

from research.ledger.log import Ledger
from tests.support.drivers import Driver, await_that, kill_node, kill_process, rows, seeded, start
from tests.support.verbs import losses, research, told

pytestmark = [pytest.mark.faults, pytest.mark.long, pytest.mark.timeout(2400)]
KILLS = ["worker"] * 5 + ["driver"] * 4 + ["raylet", "gcs_server"]


def arguments(space, storage, name: str) -> list[str]:
    """Sixty short trials, two at a time."""
    return [
        "sweep", str(space), "--trials", "60", "--epochs", "3", "--name", name, "--storage", str(storage),
        "--deterministic", "--seed", "7", "--concurrent", "2", "--cpus-per-trial", "1", "--wandb", "disabled",
    ]  # fmt: skip


def commit(driver: Driver, ledger: Ledger, what: str) -> None:
    """One kill, seen to have happened; what ends the driver is awaited."""
    if what == "driver":
        driver.kill()
        return
    if what == "worker":
        while not (workers := driver.others("ray::TrialWorker")):  # Tune's actor, as the system lists it
            assert driver.running(), driver.output
            time.sleep(0.01)
        kill_process(min(workers))
        return
    kill_node(driver.part_of_ray("raylet"), first=driver.part_of_ray(what))
    assert driver.wait(120) == 1, driver.output
    assert driver.says_how_to_go_on(ledger.directory), driver.output


@pytest.mark.fault("26 everything at random")
def test_sixty_trials_through_eleven_kills_equal_their_twin(small_space, tmp_path, tally):
    """Five workers, four drivers, a raylet and a head killed at seeded moments: all sixty trials bit for bit the twin's."""
    ran = research(*arguments(small_space, tmp_path, "twin"), timeout=1200)
    assert ran.code == 0, ran.output
    expected = Ledger.open(tmp_path / "twin")

    chance = seeded("chaos")
    moments = sorted(chance.sample(range(2, rows(expected) - 8), len(KILLS)))
    kills = chance.sample(KILLS, len(KILLS))
    driver = start(tmp_path, *arguments(small_space, tmp_path, "chaos"))
    drivers = [driver]
    for moment, what in zip(moments, kills, strict=True):
        # A driver that has just begun has to be at work before it, or what it started, can be killed.
        sessions = len(drivers)
        ledger = await_that(
            driver,
            tmp_path / "chaos",
            lambda ledger, moment=moment, sessions=sessions: (
                len(ledger.sessions) == sessions and rows(ledger) >= moment and ledger.session_rows > 0
            ),
        )
        commit(driver, ledger, what)
        tally.happened()
        if not driver.running():
            driver = start(tmp_path, "resume", tmp_path / "chaos")
            drivers.append(driver)
    assert driver.wait(600) == 0, driver.output

    ledger = Ledger.open(tmp_path / "chaos")
    tally.losing(losses(ledger, expected))
    assert len(drivers) == 7
    assert len(ledger.sessions) == 7
    assert told(ledger) == told(expected)
    assert [view.number for view in ledger.ranked()] == [view.number for view in expected.ranked()]
    for each in drivers:
        assert each.left_behind() == {}

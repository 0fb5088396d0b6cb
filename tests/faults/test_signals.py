"""Ctrl-C and SIGTERM, once and twice, to the driver alone and to everything in its process group, W&B on."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

import pytest

from research.ledger.log import Ledger
from research.store.folders import verify_folder
from tests.support.drivers import LASTING, await_that, ended, rows, start
from tests.support.verbs import deterministic, losses, told
from tests.support.wandb_reader import read_runs
from vae.state import TrainState

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.drivers import Driver

pytestmark = [pytest.mark.faults, pytest.mark.long, pytest.mark.timeout(600)]
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}


def begin(tmp_path: Path, space: Path, name: str) -> tuple[Driver, Path]:
    """A deterministic sweep with W&B offline; workers look once a second whether they are to stop."""
    more = (*LASTING, "--wandb", "offline")
    return start(tmp_path, *deterministic(space, tmp_path, name), *more), tmp_path / name


def send(driver: Driver, number: signal.Signals, whom: str) -> None:
    """To the driver, or as a terminal and a batch system do: to all of its process group."""
    if whom == "group":
        os.killpg(driver.pid, number)
    else:
        driver.process.send_signal(number)


@pytest.mark.fault("4 asked to stop")
@pytest.mark.parametrize("whom", ["driver", "group"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_one_signal_stops_cleanly_and_says_how_to_go_on(lasting_twin, small_space, tmp_path, tally, number, whom):
    """Exit code 130 or 143, the resume command printed, checkpoints and W&B files whole; resumed, equal to the twin."""
    driver, directory = begin(tmp_path, small_space, "stopped")
    await_that(driver, directory, lambda ledger: rows(ledger) >= 8)
    send(driver, number, whom)
    assert driver.wait(300) == CODES[number], driver.output
    tally.happened()

    ledger = Ledger.open(directory)
    assert driver.says_how_to_go_on(directory), driver.output
    assert "Traceback" not in driver.output
    if (number, whom) != (signal.SIGTERM, "group"):  # that ends Ray as well: nobody may be left to write it down
        assert ledger.interrupted is not None
        assert ledger.interrupted.reason == number.name
    running = [view for view in ledger.trials.values() if not view.terminal]
    assert running
    for view in running:
        if view.last_checkpoint is not None:
            TrainState.load(directory / view.last_checkpoint.checkpoint)
    assert driver.left_behind() == {}
    logged = {run.config["trial"]: run for run in read_runs(directory) if run.exit_code is not None}
    assert {view.number for view in ledger.trials.values() if view.terminal} <= set(logged)

    if whom == "driver":
        return  # how it goes on has been seen for the harder case
    resumed = start(tmp_path, "resume", directory)
    assert resumed.wait() == 0, resumed.output
    ledger.refresh()
    tally.losing(losses(ledger, lasting_twin))
    assert told(ledger) == told(lasting_twin)


@pytest.mark.fault("4 asked to stop")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_second_signal_stops_now(small_space, tmp_path, tally, number):
    """It waits for nothing: exit code 130 or 143, the ledger whole, and soon no process left."""
    driver, directory = begin(tmp_path, small_space, "now")
    ledger = await_that(driver, directory, lambda ledger: rows(ledger) >= 4)
    send(driver, number, "driver")
    while "stopping" not in driver.output and driver.running():
        time.sleep(0.002)
    send(driver, number, "driver")
    assert driver.wait(300) == CODES[number], driver.output
    tally.happened(2)

    assert len(Ledger.open(directory)) >= len(ledger)
    assert driver.left_behind() == {}


@pytest.mark.fault("4 asked to stop")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_signal_while_ray_starts_is_the_same_request(small_space, tmp_path, tally, number):
    """Before the first trial: exit code 130 or 143, the resume command printed."""
    driver, directory = begin(tmp_path, small_space, "early")
    await_that(driver, directory, lambda ledger: len(ledger.sessions) == 1)
    time.sleep(1)
    send(driver, number, "driver")
    assert driver.wait(300) == CODES[number], driver.output
    tally.happened()

    assert driver.says_how_to_go_on(directory), driver.output
    assert "Traceback" not in driver.output
    assert driver.left_behind() == {}


@pytest.mark.fault("4 asked to stop")
def test_a_signal_after_the_last_row_lets_it_finish(lasting_twin, small_space, tmp_path, tally):
    """All trials have ended, models and W&B are being finished: they are, and the exit code is the signal's."""
    driver, directory = begin(tmp_path, small_space, "late")
    ledger = await_that(driver, directory, lambda ledger: ended(ledger) == 6)
    send(driver, signal.SIGINT, "driver")
    assert driver.wait(300) == CODES[signal.SIGINT], driver.output
    tally.happened()

    ledger.refresh()
    assert told(ledger) == told(lasting_twin)
    for view in ledger.ranked()[:3]:
        verify_folder(directory / "models" / f"trial-{view.number:04d}")
    assert len({run.id for run in read_runs(directory) if run.exit_code is not None}) == 6
    assert driver.left_behind() == {}

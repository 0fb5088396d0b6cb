"""Trials in this process, one after the other, without Ray (``--address none``).

A space or a part of a config can be debugged with ``pdb`` there, and a sweep runs where Ray cannot start. The rows
equal those of a Ray sweep with ``--concurrent 1``.
"""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING

from research.driver.driver import Completed, Raised, Turn
from research.worker.messages import TrialsEnded
from research.worker.trial import run_trials
from vae.system.user_code import OwnExit

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from research.driver.driver import Driver
    from research.ledger.settings import Resources
    from research.worker.messages import Assignment, Report


class InProcess:
    """An engine that trains each trial in the process of the driver; see ``research.driver.engine.Engine``."""

    def check(self, resources: Resources) -> None:
        """A process takes any trial that the checks of the request let pass."""

    def run(self, driver: Driver) -> None:
        """Train trial after trial until the driver has none left."""
        while isinstance(tasks := driver.next(), list):
            driver.stop.running = True
            how = _train(tasks, driver)
            driver.stop.running = False
            driver.left([task.trial for task in tasks], how)
            driver.live.refresh()
        assert tasks is Turn.FINISHED, "no trial can wait for another one where only one runs"


def _train(tasks: list[Assignment], driver: Driver) -> Completed | Raised:
    channel = _Channel(driver, [task.trial for task in tasks])
    try:
        run_trials(tasks, channel)
    except _DriverFailed as failed:
        drivers_own = failed.error
    except Exception as error:  # noqa: BLE001 - whatever a part of the config raises is its trial's failure
        return Raised(error, "".join(traceback.format_exception(error)))
    else:
        return Completed()
    raise drivers_own


class _DriverFailed(OwnExit):
    """Carries an exception of the driver through the trial, whose fault it is not."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class _Channel:
    """The worker's connection to a driver in the same process."""

    def __init__(self, driver: Driver, trials: Collection[int]) -> None:
        self.driver = driver
        self.trials = trials

    def report(self, reports: Sequence[Report]) -> dict[int, int]:
        try:
            for report in reports:
                self.driver.report(report)
            self.driver.live.refresh()
        except Exception as error:
            raise _DriverFailed(error) from error
        if self.driver.stop.asked() or all(self.driver.ledger.trials[number].terminal for number in self.trials):
            raise TrialsEnded
        return self.driver.due([report.trial for report in reports])

    def pause_requested(self) -> bool:
        return self.driver.stop.asked()

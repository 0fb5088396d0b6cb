"""The interface between a driver session and what runs its trials: a Ray cluster, or this process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from research.errors import UserError

if TYPE_CHECKING:
    from research.driver.driver import Driver
    from research.ledger.settings import Resources


class Engine(Protocol):
    """Runs the trials of a driver; ``research.driver.in_process`` and ``research.on_ray.engine`` have one each."""

    def check(self, resources: Resources) -> None:
        """Refuse resources that no trial can ever get.

        Raises:
            UserError: with what is asked for and what there is.

        """

    def run(self, driver: Driver) -> None:
        """Run trials until the driver has none left, or the session is to stop.

        Raises:
            EngineDidNotStartError: no trial was started.
            StoppedWhileStartingError: the user asked to stop before any trial was started.
            EngineLostError: the cluster is gone.

        """


class EngineDidNotStartError(UserError):
    """The engine did not start, after several tries. Nothing of it is left."""


class StoppedWhileStartingError(Exception):
    """The user asked to stop while the engine was starting. Nothing of it is left."""


class EngineLostError(BaseException):
    """The cluster is gone. This is not an ``Exception``, because Tune's loop catches those and goes on waiting."""

"""Tune's actor around a worker's trials."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from ray import tune
from ray.tune.trainable.function_trainable import wrap_function

from research.worker import notice
from research.worker.messages import ASSIGNMENTS, TrialsEnded, reports_to_json
from research.worker.trial import run_trials

if TYPE_CHECKING:
    from collections.abc import Sequence

    from research.worker.messages import Report


class TuneChannel:
    """A worker's connection to its driver through Tune; see ``research.worker.messages.Channel``."""

    def __init__(self, stop_file: str | None) -> None:
        """``stop_file``: the path that appears when the sweep is to stop."""
        self._stop_file = notice.StopFile(stop_file)
        self.over = False

    def report(self, reports: Sequence[Report]) -> dict[int, int]:
        """Tune ends a trial with a ``SystemExit`` out of its own ``report``."""
        _answer.clear()
        try:
            tune.report({"reports": reports_to_json(reports)})
        except SystemExit:
            self.over = True
            raise TrialsEnded from None
        return dict(_answer)

    def pause_requested(self) -> bool:
        """Look for the stop file, at most once a second."""
        return self._stop_file.there()


_answer: dict[int, int] = {}  # the driver's answer to the last report; see TrialWorker.take_answer


def _run(config: dict[str, Any]) -> None:
    tasks = ASSIGNMENTS.validate_json(config["assignments"])
    channel = TuneChannel(tasks[0].stop_file)
    run_trials(tasks, channel)
    if channel.over:
        sys.exit(0)  # Tune expects the exception that it raised


class TrialWorker(wrap_function(_run)):  # type: ignore[misc] # Tune's is untyped
    """Tune's actor for a worker's trials. It takes SIGTERM as a notice, for which Tune itself has no handler."""

    def setup(self, config: dict[str, Any]) -> None:
        """Set the handler in the process's first thread; the trial runs in another."""
        notice.listen()
        super().setup(config)

    def take_answer(self, answer: dict[int, int]) -> None:
        """Keep the driver's answer to the report that the trial waits for.

        The driver calls this method before it lets Tune call ``train``, which lets the trial go on. Ray keeps the order of
        the calls of one process to one actor.
        """
        _answer.update(answer)

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> tune.PlacementGroupFactory:
        """Return the resources of the trial; a trial that needs a whole GPU asks for more than the others."""
        bundle = {"CPU": config["cpus"], "GPU": config["gpus"]}
        return tune.PlacementGroupFactory([{name: count for name, count in bundle.items() if count}])

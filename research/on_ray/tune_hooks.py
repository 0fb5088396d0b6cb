"""Tune's searcher, scheduler, stopper and callback, each a thin adapter to one driver.

Tune pickles them into files that nobody reads, because the ledger holds the truth. So their state is empty.
"""

from __future__ import annotations

import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray import cloudpickle, tune
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.tune import Stopper
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from research.driver.driver import Completed, Lost, Raised, Turn
from research.on_ray.capacity import no_place
from research.on_ray.stuck_worker import end_worker
from research.worker.messages import ASSIGNMENTS, reports_from_json

if TYPE_CHECKING:
    from ray.tune.experiment import Trial

    from research.driver.driver import Driver

_LOOK_EVERY_S = 1.0


class TuneSearcher(Searcher):
    """Asks the driver which trials run next, and tells it when a worker has left them."""

    def __init__(self, driver: Driver) -> None:
        """Each of Tune's trials holds one or several trials of the driver."""
        super().__init__()
        self.driver = driver
        self.numbers: dict[str, list[int]] = {}  # by Tune's id of a running trial
        self.errors: dict[str, Raised | Lost] = {}  # from TuneScheduler, which Tune calls first

    def __getstate__(self) -> dict[str, Any]:
        """Return nothing; see the module."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Save nothing; see the module."""

    def restore(self, checkpoint_path: str) -> None:
        """Restore nothing; see the module."""

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override] # ray's own type leaves out FINISHED
        """Return the next assignments, None while Tune has to wait, or FINISHED."""
        tasks = self.driver.next()
        if tasks is Turn.WAIT:
            return None
        if tasks is Turn.FINISHED:
            return str(Searcher.FINISHED)  # at None, with no trial about, Tune would wait ten minutes for one
        assert isinstance(tasks, list)
        self.numbers[trial_id] = [task.trial for task in tasks]
        return {
            "trials": self.numbers[trial_id],
            "cpus": self.driver.ledger.settings.resources.cpus_per_trial,
            "gpus": tasks[0].gpus,
            "assignments": ASSIGNMENTS.dump_json(tasks).decode(),
        }

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Do nothing: the scheduler has handed the result over already."""

    def on_trial_complete(
        self,
        trial_id: str,
        result: dict[str, Any] | None = None,
        error: bool = False,  # noqa: FBT001, FBT002 - Tune's own
    ) -> None:
        """Tell the driver that a worker has left its trials."""
        del result
        how = self.errors.pop(trial_id, Raised(None)) if error else Completed()
        self.driver.left(self.numbers.pop(trial_id, []), how)


class TuneScheduler(FIFOScheduler):
    """Hands results and errors to the driver. Tune asks it before anything else sees a result, and obeys the answer."""

    def __init__(self, driver: Driver, searcher: TuneSearcher) -> None:
        """``searcher`` is told of errors, too."""
        super().__init__()  # type: ignore[no-untyped-call] # ray's has no annotations
        self.driver = driver
        self.searcher = searcher

    def __getstate__(self) -> dict[str, Any]:
        """Return nothing; see the module."""
        return {}

    def on_trial_result(self, tune_controller: object, trial: Trial, result: dict[str, Any]) -> str:
        """Return STOP if every trial in Tune's trial has ended, else CONTINUE."""
        del tune_controller
        reports = reports_from_json(result["reports"])
        for report in reports:
            self.driver.report(report)
        trials = self.driver.ledger.trials
        if all(trials[number].terminal for number in trial.config["trials"]):
            return str(TrialScheduler.STOP)
        actor = trial.temporary_state.ray_actor
        if actor is not None:
            actor.take_answer.remote(self.driver.due(report.trial for report in reports))  # not waited for
        return str(TrialScheduler.CONTINUE)

    def on_trial_error(self, tune_controller: object, trial: Trial) -> None:
        """Keep the worker's exception for the searcher, which Tune tells of the error without it."""
        del tune_controller
        self.searcher.errors[trial.trial_id] = _error_of(trial)


class TuneStopper(Stopper):
    """Ends the experiment when the session is to stop. It never ends one trial: that is the driver's decision."""

    def __init__(self, driver: Driver) -> None:
        """Ask the driver's ``stop``."""
        self.stop = driver.stop

    def __getstate__(self) -> dict[str, Any]:
        """Return nothing; see the module."""
        return {}

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Return False."""
        del trial_id, result
        return False

    def stop_all(self) -> bool:
        """Return True if running trials are to end now."""
        return self.stop.stop_all()


class TuneCallback(tune.Callback):
    """Draws the live view between Tune's events, and looks after trials that have stopped moving."""

    def __init__(self, driver: Driver) -> None:
        """Look for the first time at the first event."""
        self.driver = driver
        self.looked = 0.0

    def __getstate__(self) -> dict[str, Any]:
        """Return nothing; see the module."""
        return {}

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: object) -> None:
        """Note that a trial runs, so that a stop within the next second waits for its state to be saved."""
        del iteration, trials, trial, info
        self.driver.stop.running = True

    def on_step_end(self, iteration: int, trials: list[Trial], **info: object) -> None:
        """Redraw, and once a second end the workers of stuck trials."""
        del iteration, info
        self.driver.live.refresh()
        if time.monotonic() - self.looked < _LOOK_EVERY_S:  # the list of trials grows with the sweep
            return
        self.looked = time.monotonic()
        running = {trial.config["trials"][0]: trial for trial in trials if trial.status == "RUNNING"}
        look = self.driver.look(running, sum(trial.status == "PENDING" for trial in trials))
        for number in look.stuck:
            actor = running[number].temporary_state.ray_actor
            if actor is not None:
                end_worker(actor)  # Tune hears of it as of any lost worker
        if look.without_place:
            self.driver.live.note(no_place(self.driver.ledger.settings.resources))


def _error_of(trial: Trial) -> Raised | Lost:
    """Return why a worker ended. Its files are removed, because a traceback may quote a secret."""
    error: BaseException | None = None
    try:
        # This process wrote the file moments ago: it is not a file that somebody else hands us.
        error = cloudpickle.loads(Path(trial.pickled_error_file).read_bytes())
        text = "".join(traceback.format_exception(error))
    except (OSError, TypeError, ValueError, EOFError) as unreadable:
        text = f"the worker's exception can't be read: {unreadable}"
    for file in (trial.pickled_error_file, trial.error_file):
        if file is not None:
            Path(file).unlink(missing_ok=True)
    trial.run_metadata.pickled_error_filename = trial.run_metadata.error_filename = None
    if isinstance(error, RayTaskError):
        return Raised(error.cause, text)
    if isinstance(error, RayError):
        died = isinstance(error, RayActorError)
        return Lost("the worker died" if died else f"the worker was lost ({type(error).__name__})", text)
    return Raised(error, text)

"""The engine that runs a driver's trials with Ray Tune: on a Ray of its own, or on a cluster."""

from __future__ import annotations

import logging
import os
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ray import tune
from ray.tune.execution import class_cache

from research.driver.engine import StoppedWhileStartingError
from research.on_ray.capacity import addable_nodes, await_nodes, check_capacity, cluster_nodes
from research.on_ray.joined import joined_ray
from research.on_ray.local import asks_for_token, private_ray
from research.on_ray.trainable import TrialWorker
from research.on_ray.tune_hooks import TuneCallback, TuneScheduler, TuneSearcher, TuneStopper
from research.on_ray.watch import watched_ray
from vae.external import PATH_VARIABLE, search_path

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ray.tune.experiment import Trial

    from research.driver.driver import Driver
    from research.driver.stopping import Stop
    from research.ledger.settings import Resources


class RayEngine:
    """An engine on Ray; see ``research.driver.engine.Engine``."""

    def __init__(self, address: str | None = None) -> None:
        """``address``: an existing cluster. None starts a Ray on this machine, which ends with the session."""
        self.address = address

    def check(self, resources: Resources) -> None:
        """Refuse a trial that the cluster can never place. Where Ray is not running yet, nothing is asked."""
        if self.address is not None:
            with _ray(self.address, resources):
                addable = addable_nodes()
                if addable == []:
                    await_nodes()
                check_capacity(resources, cluster_nodes(), addable)

    def run(self, driver: Driver) -> None:
        """Run Tune's loop, from ``ray.init`` to the last trial."""
        settings = driver.ledger.settings
        try:
            with _ray(self.address, settings.resources, driver.stop), watched_ray(self.address, driver.stop):
                if not asks_for_token():
                    driver.live.note(
                        f"the Ray cluster at {self.address} asks for no token: whoever reaches it can run code as you"
                    )
                _tune(driver)
        except SystemExit as error:
            if error.code != signal.SIGTERM:  # Ray takes a SIGTERM in this way while it starts
                raise
            driver.stop.signal = signal.SIGTERM
            raise StoppedWhileStartingError from None


def _tune(driver: Driver) -> None:
    # Over the live view, Tune prints each failed trial's traceback (the ledger has it), complaints about its own state
    # (which is never read), and the trials that did not end (the summary names them).
    for module in ("execution.tune_controller", "execution.experiment_state", "tune"):
        logging.getLogger(f"ray.tune.{module}").setLevel(logging.CRITICAL)
    # Tune would put AWS keys into a runtime environment, which Ray logs and shows. Workers of a Ray of our own inherit
    # them, and a cluster's nodes have their own. With a variable for PyTorch Lightning in it (not used here), the
    # workers that Ray has ready would not do, and others would be started.
    class_cache.DEFAULT_ENV_VARS.clear()
    class_cache.ENV_VARS_TO_PROPAGATE -= {name for name in class_cache.ENV_VARS_TO_PROPAGATE if name.startswith("AWS_")}
    searcher = TuneSearcher(driver)
    tune.Tuner(
        TrialWorker,
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=TuneScheduler(driver, searcher),
            num_samples=-1,
            reuse_actors=True,
            trial_name_creator=_name,
            trial_dirname_creator=_name,
        ),
        run_config=tune.RunConfig(
            # A new folder for each session: Tune's own state is never read again, so sessions must not mix.
            name=f"session-{len(driver.ledger.sessions) - 1}",
            storage_path=str(driver.ledger.folder.ray),
            failure_config=tune.FailureConfig(max_failures=0),  # the driver decides what runs again
            callbacks=[TuneCallback(driver)],
            stop=TuneStopper(driver),
            verbose=0,
        ),
    ).fit()


def _name(trial: Trial) -> str:
    return f"trial-{trial.config['trials'][0]:04d}-{trial.trial_id}"


@contextmanager
def _ray(address: str | None, resources: Resources, stop: Stop | None = None) -> Iterator[None]:
    """Start a Ray for this process, or connect to the one at ``address``; ``stop`` ends a start that takes long."""
    # Threads are decided before any worker imports torch: N workers with torch's default of all cores each lose
    # a factor of 14 on two cores. PASSIVE: waiting threads sleep.
    variables = {
        "OMP_NUM_THREADS": str(resources.threads),
        "MKL_NUM_THREADS": str(resources.threads),
        "OMP_WAIT_POLICY": "PASSIVE",
        # Parts from outside the tree are found by workers where the driver found them.
        PATH_VARIABLE: os.pathsep.join(str(folder) for folder in search_path()),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_IGNORE_UNHANDLED_ERRORS": "1",  # of a worker whose result nobody waits for any more: a traceback on the screen
        "RAY_AIR_NEW_OUTPUT": "0",  # Tune prints nothing: the live view is ours
        # With a searcher Tune starts one worker at a time by default: all slots' workers are to start together.
        "TUNE_MAX_PENDING_TRIALS_PG": str(resources.concurrent),
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
        "TUNE_DISABLE_SIGINT_HANDLER": "1",
    }
    os.environ |= variables
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with private_ray(stop, **quiet) if address is None else joined_ray(address, variables, **quiet):
        # Ray puts a handler of its own on SIGTERM, which aborts the process with nothing written down.
        for number, handler in handlers.items():
            signal.signal(number, handler)
        yield

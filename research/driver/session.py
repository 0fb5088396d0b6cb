"""One session of a driver: what happens around it, from the locks to the tracked files."""

from __future__ import annotations

import os
import shutil
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING

from research import provenance
from research.driver.driver import Driver
from research.driver.engine import EngineDidNotStartError, EngineLostError, StoppedWhileStartingError
from research.driver.failures import too_many
from research.driver.stopping import Stop, signals
from research.errors import StorageError, storing
from research.ledger import budget
from research.ledger.events import Interrupted, SessionStarted
from research.store.in_place import remove_empty
from research.store.lease import Lease
from research.store.lock import SweepLock
from research.store.mirror import address as address_of
from research.store.mirror import follow, store_of
from research.text import shell
from research.tracking.sink import Sink
from vae.durable import replace

if TYPE_CHECKING:
    from pathlib import Path

    from research.driver.audience import Audience
    from research.driver.engine import Engine
    from research.errors import UserError
    from research.ledger.log import Ledger
    from research.search.spaces import Space


@dataclass(frozen=True)
class Outcome:
    """How a session ended, and what could not be done beside the training."""

    signal: int | None  # the signal that stopped it
    budget: str | None  # the budget that is spent
    lost: str | None  # says that the cluster is gone
    failing: str | None  # says that too many trials failed in a row, and that nothing more was started
    problems: list[str]


def run(ledger: Ledger, space: Space, live: Audience, engine: Engine) -> Outcome:
    """Run the open trials of a sweep on ``engine`` until all have ended or the session is to stop.

    Raises:
        UserError: the engine did not start, the space gives no trials, or the sweep cannot be written any more.

    """
    stop = Stop(ledger)
    with SweepLock(ledger.directory), Lease(ledger.directory), signals(stop):
        # Read again under the lock: another driver may have gone on between our reading and our locking.
        follow(ledger.directory)
        ledger.refresh()
        session = _Session(ledger, space, live, stop)
        try:
            session.run(engine)
        except StoppedWhileStartingError:
            pass  # the signal is in ``stop``
        except EngineDidNotStartError as error:
            raise _with_the_way_on(ledger, error) from None
        except EngineLostError:
            ledger.refresh()  # it may have been raised between the write of an event and its reading
        except Exception as error:
            if not session.driver.cannot_write(error):
                raise
        finally:
            session.finish()
        if ledger.refused is not None:  # Tune takes an exception in its hooks for the trial's
            raise _with_the_way_on(ledger, ledger.refused)
        open_ends = ledger.trained < ledger.settings.trials and not session.driver.exhausted
        return Outcome(
            signal=stop.signal,
            budget=stop.budget or budget.spent(ledger),
            lost=stop.lost,
            failing=too_many(ledger) if open_ends else None,
            problems=session.problems,
        )


def _with_the_way_on(ledger: Ledger, refused: UserError) -> UserError:
    if isinstance(refused, StorageError | EngineDidNotStartError):
        return type(refused)(f"{refused}: {shell('research', 'resume', address_of(ledger.directory))}")
    return refused


class _Session:
    """A driver with its scratch folder and its tracking process."""

    def __init__(self, ledger: Ledger, space: Space, live: Audience, stop: Stop) -> None:
        self.ledger = ledger
        self.live = live
        self.stop = stop
        self.problems: list[str] = []
        self.scratch: Path = ledger.folder.ray
        self.scratch.mkdir(exist_ok=True)
        settings = ledger.settings
        if settings.replicates == settings.stack == 1 and store_of(ledger.directory) is None:
            stop.file = ledger.folder.stop_request(len(ledger.sessions))  # a file of another session may be left there
        _begin(ledger)
        self.driver = Driver(ledger, space, live, stop)
        self.sink = Sink.start(ledger.directory, settings.wandb)

    def run(self, engine: Engine) -> None:
        """Run trials. Where none needs a worker, the engine is not even started."""
        if self.driver.idle or self.stop.asked():
            return
        engine.run(self.driver)
        if self.driver.problem is not None:
            raise self.driver.problem

    def finish(self) -> None:
        """Write down why the session ends, and bring every view up to the ledger."""
        stop = self.stop
        why = signal.Signals(stop.signal).name if stop.signal is not None else stop.lost or stop.budget
        if self.ledger.refused is None and why is not None:
            self.ledger.append(Interrupted(reason=why))
        self.problems += self.driver.close()
        if self.driver.gone():
            self.sink.abandon()
        else:
            self.live.note("finishing W&B files")
            self.problems += self.sink.close()
        self.live.close()
        shutil.rmtree(self.scratch, ignore_errors=True)
        if self.driver.gone():
            remove_empty(self.ledger.directory)


def _begin(ledger: Ledger) -> None:
    """Write down who drives the sweep from here on, and with which code."""
    ledger.append(
        SessionStarted(
            generation=len(ledger.sessions),
            pid=os.getpid(),
            host=os.uname().nodename,
            code=provenance.code(),
            versions=provenance.versions(),
            hardware=provenance.hardware(),
        )
    )
    diff = provenance.diff_text()
    if diff:
        file = ledger.folder.code_diff(len(ledger.sessions) - 1)
        with storing(file):
            replace(file, diff.encode())
        if (store := store_of(ledger.directory)) is not None:
            store.write(file.name, diff.encode())

"""How a sweep grows: more trials, a larger budget, another space."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from research.errors import UserError, storing
from research.ledger import budget
from research.ledger.events import SweepExtended
from research.ledger.tail import refuse_lost_tail
from research.planning.earlier import finished
from research.planning.preflight import check_space, comparability
from research.search.samplers import rehearse
from research.search.spaces import load_recorded, load_space, of_sweep
from research.store.data_copy import data_directory
from research.store.lease import Lease
from research.store.lock import SweepLock
from research.store.mirror import follow
from vae.durable import replace

if TYPE_CHECKING:
    from research.ledger.log import Ledger


def extend(ledger: Ledger, *, trials: str | None, space: str | None, more: budget.More) -> SweepExtended:
    """Write down that the sweep has more to do: ``trials`` is ``+50``, or a new total.

    Raises:
        UserError: it would have no more to do, or another space's trials would not compare with its own.

    """
    sweep_dir, settings = ledger.directory, ledger.settings
    refuse_lost_tail(ledger)
    if settings.parent is not None:
        raise UserError(f"{str(sweep_dir)!r} holds finalists: research finalists with more --seeds trains more of them")
    total = settings.trials if trials is None else _total(trials, settings.trials)
    new_budget = budget.raised(settings.budget, more)
    source = None
    given = load_recorded(settings.space, ledger.folder.space) if space is None else load_space(space)
    chosen = of_sweep(given, ledger)
    if space is not None and chosen.source.sha256 != settings.space.sha256:
        source = chosen.source
        found = check_space(
            chosen,
            metric=settings.metric,
            epochs=settings.epochs,
            seed=settings.seed,
            data_dir=data_directory(settings.data_dir),
            data=settings.data,
            constraints=settings.constraints,
            objectives=settings.objectives,
        )
        if (reason := ledger.why_incomparable(found.comparison)) is not None:
            raise UserError(f"space {space!r} gives rows that don't compare with the sweep's: {reason}")
    if (total, new_budget, source) == (settings.trials, settings.budget, None):
        raise UserError(f"nothing to extend {str(sweep_dir)!r} by: give --trials +N, a budget, or another --space")
    learned = [trial for event in ledger.learned for trial in event.trials]
    compared = dataclasses.replace(settings, start_from=(), comparison=ledger.comparison)
    rehearse(chosen, compared, [*learned, *finished(ledger)], comparability(compared))
    event = SweepExtended(trials=total, budget=new_budget, space=source)
    with SweepLock(sweep_dir), Lease(sweep_dir):
        follow(sweep_dir)
        ledger.refresh()
        ledger.append(event)
        if source is not None:
            with storing(ledger.folder.space):
                replace(ledger.folder.space, source.source.encode())
    return event


def _total(text: str, now: int) -> int:
    added = text.startswith("+")
    try:
        number = int(text.removeprefix("+"))
    except ValueError:
        number = 0
    total = now + number if added else number
    if number < 1 or total < now:
        raise UserError(f"--trials must be +N, or a total of at least the sweep's {now}, got {text!r}")
    return total

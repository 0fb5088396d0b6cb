"""What a sweep takes from others, and how it grows: configs to start from, trials to learn from, more to do."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from research.errors import UserError, storing
from research.ledger import budget
from research.ledger.comparison import why_not
from research.ledger.consistency import check_record, config_of, names_external
from research.ledger.events import LearnedTrial, SweepExtended, TrialsLearned
from research.ledger.log import Ledger
from research.ledger.records import load_record
from research.ledger.settings import StartFrom
from research.ledger.tail import refuse_lost_tail
from research.planning.preflight import check_space, comparability
from research.search.samplers import rehearse
from research.search.spaces import load_recorded, load_space, of_sweep
from research.store.data_copy import data_directory
from research.store.lease import Lease
from research.store.lock import SweepLock
from research.store.mirror import follow, local
from vae.durable import LARGE_TEXT, read_file

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from research.ledger.settings import SweepSettings


def start_from(source: str) -> list[StartFrom]:
    """The parameters that ``source`` gives: a sweep's best ``keep`` trials, a record, a kept model, or JSON.

    JSON is an object of parameters by name, or a list of such objects.

    Raises:
        UserError: it gives none.

    """
    path = local(source)
    if (path / "ledger").is_dir():
        ledger = Ledger.open(path)
        best = ledger.ranked()[: ledger.settings.keep]
        if not best:
            raise UserError(f"--start-from {source!r}: no trial of that sweep has a result yet")
        return [
            StartFrom(params=dict(v.created.params), source=f"{ledger.settings.name} trial {v.number}") for v in best
        ]
    try:
        values = json.loads(read_file(path, LARGE_TEXT)) if path.is_file() else None
    except OSError as error:
        raise UserError(f"--start-from {source!r} can't be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"--start-from {source!r} is not JSON: {error}") from None
    if values is None or (isinstance(values, dict) and "config_hash" in values):
        record = load_record(path)
        # Nothing of a stranger's is run for the sake of a few parameters.
        check_record(record) if names_external(record.config) else config_of(record)
        if not record.params:
            raise UserError(f"--start-from {source!r}: that run was not drawn from a space, so it has no parameters")
        return [StartFrom(params=record.params, source=f"{record.sweep} trial {record.trial}")]
    given = values if isinstance(values, list) else [values]
    if not given or not all(isinstance(params, dict) and params for params in given):
        raise UserError(f"--start-from {source!r} must hold an object of parameters by name, or a list of such objects")
    try:
        return [StartFrom(params=params, source=source) for params in given]
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(step) for step in first["loc"])[:100]
        raise UserError(f"--start-from {source!r}: {place}: {first['msg']}, got {first['input']!r:.80}") from None


def learn_from(source: Path, settings: SweepSettings, epochs: Collection[int]) -> TrialsLearned:
    """The finished trials of the sweep in ``source``, for the sampler of a sweep with ``settings``.

    ``epochs``: the full budgets that this sweep's configs may have.

    Raises:
        UserError: there are none, or its figures don't compare with those to come; both are printed.

    """
    other = Ledger.open(local(source))
    theirs = other.settings
    for what, mine, its in (
        (
            "ranks by",
            [f"{t.name} ({t.direction})" for t in settings.targets],
            [f"{t.name} ({t.direction})" for t in theirs.targets],
        ),
        ("has constraints", [str(c) for c in settings.constraints], [str(c) for c in theirs.constraints]),
        ("has replicates", settings.replicates, theirs.replicates),
    ):
        if mine != its:
            raise UserError(
                f"--learn-from {str(source)!r}: that sweep {what} {its}, this one {mine}: they don't compare"
            )
    if (reason := why_not(settings.compared_by, other.comparison, settings.shared)) is not None:
        raise UserError(f"--learn-from {str(source)!r}: that sweep's figures don't compare with this one's: {reason}")
    budgets = {view.created.config["epochs"] for view in other.trials.values() if view.created.config}
    if not budgets <= set(epochs):
        raise UserError(
            f"--learn-from {str(source)!r}: its trials run for {_listed(budgets)} epochs, this sweep's for {_listed(epochs)}: "
            "they don't compare; give --epochs the same"
        )
    trials = _finished(other)
    if not trials:
        raise UserError(f"--learn-from {str(source)!r}: no trial of that sweep has finished")
    return TrialsLearned(name=theirs.name, identity=other.identity, trials=trials)


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
    given = load_recorded(settings.space, sweep_dir / "space.py") if space is None else load_space(space)
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
    rehearse(chosen, compared, [*learned, *_finished(ledger)], comparability(compared))
    event = SweepExtended(trials=total, budget=new_budget, space=source)
    with SweepLock(sweep_dir), Lease(sweep_dir):
        follow(sweep_dir)
        ledger.refresh()
        ledger.append(event)
        if source is not None:
            with storing(sweep_dir / "space.py"):
                (sweep_dir / "space.py").write_text(source.source, encoding="utf-8")
    return event


def _finished(ledger: Ledger) -> list[LearnedTrial]:
    """What a sampler needs of the trials that ended with a result."""
    metric = ledger.settings.metric.name
    return [
        LearnedTrial(
            trial=view.number,
            params=view.created.params,
            distributions=view.created.distributions,
            complete=view.status == "COMPLETE",
            values=list(point) if view.status == "COMPLETE" else [],
            curve={str(epoch): value for epoch, value in view.curve(metric).items()},
            violations=ledger.violations(view),
        )
        for _, view in sorted(ledger.trials.items())
        if view.status in {"COMPLETE", "PRUNED"} and (point := ledger.point(view)) is not None
    ]


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


def _listed(values: Collection[Any]) -> str:
    return ", ".join(str(value) for value in sorted(values))

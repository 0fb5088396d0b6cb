"""Input of a new sweep from earlier ones: configs to start from, and trials to learn from."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from research.errors import UserError
from research.ledger.comparison import why_not
from research.ledger.consistency import check_record, config_of, names_external
from research.ledger.events import LearnedTrial, TrialsLearned
from research.ledger.log import Ledger
from research.ledger.records import load_record
from research.ledger.settings import StartFrom
from research.store.layout import SweepFolder
from research.store.mirror import local
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
    if SweepFolder(path).is_sweep:
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


def learn_from(source: str | Path, settings: SweepSettings, epochs: Collection[int]) -> TrialsLearned:
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
    trials = finished(other)
    if not trials:
        raise UserError(f"--learn-from {str(source)!r}: no trial of that sweep has finished")
    return TrialsLearned(name=theirs.name, identity=other.identity, trials=trials)


def finished(ledger: Ledger) -> list[LearnedTrial]:
    """Return the trials that ended with a result, as a sampler needs them."""
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


def _listed(values: Collection[Any]) -> str:
    return ", ".join(str(value) for value in sorted(values))

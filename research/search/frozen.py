"""A trial of the ledger as Optuna's own: its state, values, curve and constraints, told the truth.

COMPLETE has the best value of its curve, or the objectives at that row; PRUNED has its curve; all else has no value.
With several objectives there are no curves, which Optuna refuses there.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from optuna.distributions import json_to_distribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from research.errors import CorruptFile

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from research.ledger.log import Ledger
    from research.ledger.settings import Constraint
    from research.ledger.trial_view import TrialView

STATES = {
    "COMPLETE": TrialState.COMPLETE,
    "PRUNED": TrialState.PRUNED,
    "FAIL": TrialState.FAIL,
    "SKIPPED": TrialState.FAIL,  # Optuna has no word for a draw that was never trained
    "RUNNING": TrialState.RUNNING,
}
_CONSTRAINT_PREFIX = "constraints:"  # where Trial.set_constraint of Optuna 5 writes, and its samplers look


def frozen_trial(ledger: Ledger, view: TrialView, *, ended: bool) -> FrozenTrial:
    """The trial as it ended, or as RUNNING with the curve that it has.

    Raises:
        CorruptFile: its parameters are none that Optuna knows, so that another program wrote the event.

    """
    state = STATES[view.status] if ended else TrialState.RUNNING
    with understood(f"trial {view.number} in {ledger.folder.ledger}"):
        distributions = {name: json_to_distribution(text) for name, text in view.created.distributions.items()}
        return create_trial(
            state=state,
            values=values_of(ledger, view, state),
            # A config that was not drawn may have parameters without a distribution, which Optuna does not take.
            params={name: value for name, value in view.created.params.items() if name in distributions},
            distributions=distributions,
            system_attrs=dict(view.created.sampler_attributes) | (constraints_of(ledger, view) if ended else {}),
            user_attrs=attributes_of(ledger, view) if ended else {},
            intermediate_values=curve_of(ledger, view),
        )


@contextmanager
def understood(what: str) -> Iterator[None]:
    """Make of parameters that Optuna doesn't take a ``CorruptFile`` that names ``what``: another program wrote them."""
    try:
        yield
    except (ValueError, TypeError, KeyError, AttributeError, ArithmeticError, RecursionError) as error:
        line = " ".join(str(error).split())[:200]
        raise CorruptFile(f"the parameters of {what} can't be understood ({line}): restore it from a copy") from error


def curve_of(ledger: Ledger, view: TrialView) -> dict[int, float]:
    """The metric by epoch."""
    return {} if len(ledger.settings.targets) > 1 else view.curve(ledger.settings.metric.name)


def values_of(ledger: Ledger, view: TrialView, state: TrialState) -> list[float] | None:
    """The best of the curve, or the objectives at that row, for COMPLETE; the last for PRUNED; else None."""
    if state is TrialState.COMPLETE:
        point = ledger.point(view)
        if point is None:
            raise ValueError("it is complete, and no row has a finite value of each objective")
        return list(point)
    return list(curve_of(ledger, view).values())[-1:] or None if state is TrialState.PRUNED else None


def constraints_of(ledger: Ledger, view: TrialView) -> dict[str, Any]:
    """Return the violation of each constraint in Optuna's form: at most 0 is feasible."""
    return constraint_attributes(ledger.settings.constraints, ledger.violations(view))


def constraint_attributes(constraints: Sequence[Constraint], violations: Sequence[float]) -> dict[str, Any]:
    """Return the attributes for violations by the constraints' names. All trials of a study must have the same names."""
    return {f"{_CONSTRAINT_PREFIX}{one}": missed for one, missed in zip(constraints, violations, strict=True)}


def attributes_of(ledger: Ledger, view: TrialView) -> dict[str, Any]:
    """Return the attributes of a trial that people look for in a study."""
    best = view.best(ledger.settings.metric)
    return {
        "config_hash": view.created.config_hash,
        "seed": view.created.seed,
        "best_epoch": None if best is None else best.epoch,
        "fail_kind": view.fail_kind,
        "reason": view.reason,
    }

"""The ledger's trials as an Optuna study in memory, for Optuna's own plots and importances.

Made from the ledger each time and never written: unlike the study of a driver's session, no sampler reads it.
"""

from __future__ import annotations

import warnings
from datetime import datetime
from typing import TYPE_CHECKING

import optuna
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.trial import TrialState

from research.search.frozen import frozen_trial

if TYPE_CHECKING:
    from collections.abc import Callable

    from research.ledger.log import Ledger
    from research.ledger.settings import Metric
    from research.ledger.trial_view import TrialView

FEWEST = 4  # complete trials below which a forest of importances is noise


def study_of(
    ledger: Ledger, *, only_complete: bool = False, name: str | None = None, most: int | None = None
) -> optuna.Study:
    """The trials with parameters, states, values, curves, constraints and times; Optuna's numbers are ours.

    One objective: COMPLETE has the best value of its curve, PRUNED the last. Several: COMPLETE has its point, PRUNED
    has none, and there are no curves, which Optuna refuses there. ``only_complete`` leaves out all but the full
    budget; the numbers are then not ours. ``name``: how the study is called, the sweep's name by default. ``most``: of
    the trials added, the first so many.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        study_name=name or ledger.settings.name,
        storage=optuna.storages.InMemoryStorage(),
        directions=[target.direction for target in ledger.settings.targets],
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names([target.name for target in ledger.settings.targets])
    added = 0
    for _, view in sorted(ledger.trials.items()):
        frozen = _frozen(ledger, view)
        if (frozen.state is TrialState.COMPLETE or not only_complete) and (most is None or added < most):
            study.add_trial(frozen)
            added += 1
    return study


def target_of(ledger: Ledger, index: int) -> tuple[Metric, Callable[[optuna.trial.FrozenTrial], float]]:
    """Objective number ``index`` and how Optuna's plots read it from a trial."""
    return ledger.settings.targets[index], lambda trial: trial.values[index]


def evaluator() -> FanovaImportanceEvaluator:
    """fANOVA, seeded: the same trials give the same figures."""
    return FanovaImportanceEvaluator(seed=0)


def importances(ledger: Ledger, *, most: int | None = None) -> tuple[dict[str, dict[str, float]], str | None]:
    """fANOVA's importances (Hutter et al. 2014) by objective and parameter, and why there are none if so.

    Of COMPLETE trials, which all had their full budget, and of the parameters that every one of them has. They add
    up to 1 for each objective. ``most``: as for :func:`study_of`.
    """
    study = study_of(ledger, only_complete=True, most=most)
    trials = study.get_trials(deepcopy=False)
    if len(trials) < FEWEST:
        return {}, f"trials that ran to the full budget: {len(trials)}; importances need {FEWEST} at least"
    varied = [name for name in trials[0].params if len({repr(trial.params.get(name)) for trial in trials}) > 1]
    if not varied:
        return {}, "no parameter has more than one value among the trials that ran to the full budget"
    found = {}
    for index in range(len(ledger.settings.targets)):
        metric, target = target_of(ledger, index)
        if len({target(trial) for trial in trials}) == 1:
            return {}, f"every trial that ran to the full budget has the same {metric.name}"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            figures = get_param_importances(study, evaluator=evaluator(), target=target)
        found[metric.name] = {name: float(figure) for name, figure in figures.items()}
    if not all(found.values()):
        return {}, "no parameter is in every trial that ran to the full budget"
    return found, None


def _frozen(ledger: Ledger, view: TrialView) -> optuna.trial.FrozenTrial:
    frozen = frozen_trial(ledger, view, ended=view.terminal)
    # Optuna's clock is the local one, without a zone.
    frozen.datetime_start = datetime.fromisoformat(view.started).astimezone().replace(tzinfo=None)
    if view.terminal:
        frozen.datetime_complete = datetime.fromisoformat(view.updated).astimezone().replace(tzinfo=None)
    return frozen

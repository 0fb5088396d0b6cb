"""Warnings about a model that trained but is useless: worse than a uniform guess, or collapsed."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from research.text import number_text
from vae.evaluate import COLLAPSED_KL
from vae.measure import uniform_nll
from vae.train_config import FEW_LEVELS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from research.ledger.log import Ledger
    from research.ledger.trial_view import TrialView

_HALF = 0.5  # of the replicates


def doubts(row: Mapping[str, Any], measure: str, config: Mapping[str, Any]) -> list[str]:
    """Return a clause for each reason to doubt the model of this row; a sound model has none.

    ``measure`` is the row's, and ``config`` the JSON of its TrainConfig, for the remedy.
    """
    found = []
    guess, nll = uniform_nll(measure), _nll(row)
    if guess is not None and nll is not None and nll > guess:
        found.append(f"worse than a uniform guess: {_compared(nll, guess, measure)}{_remedy(config, measure)}")
    collapsed = row.get("val/collapsed")
    if isinstance(collapsed, bool | int | float) and collapsed > _HALF:
        kl = row.get("val/kl")
        told = f" (val/kl {number_text(kl)}, below {COLLAPSED_KL:g} nats)" if isinstance(kl, float) else ""
        found.append(f"collapsed: its code says nothing of the example{told}")
    return found


def doubts_of(ledger: Ledger, view: TrialView) -> list[str]:
    """Return the doubts about a trial's best row; none if it has no row with a finite value."""
    best = view.best(ledger.settings.metric)
    if best is None:
        return []
    return doubts(best.metrics, str(best.metrics.get("measure", ledger.settings.measure)), view.created.config)


def short(found: list[str]) -> str:
    """Return the doubts without their figures, for one line beside others."""
    return ", ".join(doubt.partition(":")[0] for doubt in found)


def warnings(ledger: Ledger, views: list[TrialView]) -> list[str]:
    """Return a line for each doubt about these trials. Trials with the same doubt share a line."""
    by_doubt: dict[str, list[tuple[TrialView, str]]] = {}
    for view in views:
        for doubt in doubts_of(ledger, view):
            by_doubt.setdefault(doubt.partition(":")[0], []).append((view, doubt))
    lines = []
    for members in by_doubt.values():
        view, doubt = members[0]
        others = len(members) - 1
        more = f"; so {'are' if others > 1 else 'is'} {others} more of these trials" if others else ""
        lines.append(f"warning: the model of trial {view.number} is {doubt}{more}")
    return lines


def _nll(row: Mapping[str, Any]) -> float | None:
    """Return the lowest estimate of −log p(x) that the row has, in nats per example."""
    values = [row.get("val/nll_iwae"), row.get("val/reconstruction") if "val/elbo" not in row else None]
    if isinstance(elbo := row.get("val/elbo"), float):
        values.append(-elbo)
    finite = [value for value in values if isinstance(value, int | float) and math.isfinite(value)]
    return min(finite, default=None)


def _compared(nll: float, guess: float, measure: str) -> str:
    if guess == 0.0:
        return f"−log p(x) is {number_text(nll)} nats, where a uniform density on [0, 1] has 0"
    dimensions = int(measure.partition("d ")[0].rpartition(" ")[2]) * math.log(2)
    return f"{nll / dimensions:.1f} bits per dimension, where a guess that takes all values alike has {guess / dimensions:.1f}"


def _remedy(config: Mapping[str, Any], measure: str) -> str:
    likelihood = config.get("likelihood")
    kind = likelihood.get("kind") if isinstance(likelihood, dict) else None
    levels = measure.partition("counts(0..")[2].partition(")")[0]
    if kind == "binomial" and levels.isdigit() and int(levels) > FEW_LEVELS:
        return f"; a binomial is too narrow for values 0..{levels}, use likelihood.kind 'discretised_logistic'"
    return ""

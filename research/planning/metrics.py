"""The metrics that a sweep may rank by. ``docs/reading-the-numbers.md`` has the reasons at length."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Literal

from research.errors import UserError
from research.ledger.metrics import METRICS, OF_A_DENSITY, RANKING, of_kind
from research.ledger.settings import Constraint, Metric
from vae.config import nearest
from vae.serialization import to_dict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vae.external_metric import ExternalMetric
    from vae.train_config import TrainConfig

_ONE_TERM = of_kind("term", "error")
_COSTS = of_kind("cost")  # objectives beside another metric; on their own they would find the smallest model
_BOUNDS = of_kind("bound")
_OF_A_POINT = frozenset(name for name in RANKING if METRICS[name].needs == "point")


def parse_metric(text: str, own: Sequence[ExternalMetric] = ()) -> Metric:
    """``val/elbo`` or ``val/elbo:max`` -> the metric with its direction; ``own``: the metrics that the space adds.

    Raises:
        UserError: no such metric, or one that may not select.

    """
    name, _, direction = text.partition(":")
    if name.startswith("test/"):
        raise UserError(f"metric {name!r} would select on the test split; use its validation twin, val/{name[5:]}")
    if name.startswith("train/"):
        raise UserError(
            f"metric {name!r} is not comparable between trials (what is swept rescales it) and is not held out; "
            "use val/elbo"
        )
    directions = RANKING | {f"val/{metric.name}": metric.direction for metric in own}
    if name not in directions:
        raise UserError(f"unknown metric {name!r}: {nearest(name, directions)}")
    usual = directions[name]
    if direction not in {"", usual, usual[:3]}:
        raise UserError(f"metric {name!r} is better {usual[:3]}imised; got direction {direction!r}, leave it out")
    return Metric(name=name, direction=usual)


def parse_constraint(text: str, own: Sequence[ExternalMetric] = ()) -> Constraint:
    """``val/samples_as_asked>=0.95`` -> the constraint.

    Raises:
        UserError: it is not of that form, or names no metric that may select.

    """
    relation: Literal[">=", "<="] = ">=" if ">=" in text else "<="
    name, found, bound = text.partition(relation)
    try:
        value = float(bound)
    except ValueError:
        found = ""
    if not found or not math.isfinite(value):
        raise UserError(f"constraint {text!r} must be METRIC>=NUMBER or METRIC<=NUMBER, e.g. val/active_units>=5")
    return Constraint(metric=parse_metric(name.strip(), own).name, relation=relation, bound=value)


def check_objectives(objectives: Sequence[Metric], configs: Sequence[TrainConfig]) -> None:
    """Refuse objectives whose front would say nothing: see :func:`check_metric` for each one's own reasons.

    Rate (``val/kl``) and distortion (``val/reconstruction``) are refused alone while their weight is swept, and
    belong together as a pair: neither can be driven to its optimum without the other paying for it.

    Raises:
        UserError: with the reason and what to do.

    """
    names = [objective.name for objective in objectives]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"--metric {twice!r} is given twice; give each objective once")
    if all(name in _COSTS for name in names):
        raise UserError(f"objectives {', '.join(names)} measure cost alone; add what it buys, e.g. --metric val/elbo")
    pair = {"val/kl", "val/reconstruction"} <= set(names)
    for objective in objectives:
        check_metric(objective, configs, beside=["val/kl", "val/reconstruction"] if pair else [], cost=True)


def check_constraints(constraints: Sequence[Constraint], configs: Sequence[TrainConfig]) -> None:
    """Refuse a constraint on what none of these configs reports: no trial could satisfy it.

    Raises:
        UserError: with the field that would have it reported.

    """
    for constraint in constraints:
        reasons = [_why_unreported(constraint.metric, config) for config in configs]
        if reasons and all(reasons):
            raise UserError(f"constraint '{constraint}' can't be satisfied by any trial: {reasons[0]}")
        _refuse_unasked(f"constraint '{constraint}'", constraint.metric, configs[0])


def _why_unreported(metric: str, config: TrainConfig) -> str | None:
    """Why the parts of this config give no such figure; None where they do, if ``eval`` asks for it."""
    kind = config.posterior.kind
    if metric not in RANKING and metric not in {f"val/{own.name}" for own in config.metrics}:
        return f"{metric} is not among the config's metrics"
    if metric in OF_A_DENSITY and not config.posterior.has_density:
        return f"{metric} does not exist for posterior.kind {kind!r}, a code without a density; use val/reconstruction"
    if metric in _OF_A_POINT and config.posterior.has_density:
        return (
            f"{metric} is reported for posterior.kind 'deterministic' alone, not for {kind!r}; use val/reconstruction"
        )
    if metric == "val/denoise_error" and config.corruption.kind == "none":
        return f"{metric} needs a corruption, but corruption.kind is 'none'"
    if metric == "val/bits_per_dimension" and not _has_bits(config):
        return (
            f"{metric} has no meaning for cross-entropy on grey pixels and for densities without dequantisation; "
            "use val/elbo, or set data.dequantise"
        )
    return None


def _refuse_unasked(what: str, metric: str, config: TrainConfig) -> None:
    """Some metrics are reported only where ``eval`` asks for them."""
    if metric == "val/samples_as_asked" and config.eval.classified_samples == 0:
        raise UserError(f"{what} needs eval.classified_samples > 0 in the space, got 0; e.g. 10000")
    if metric == "val/nll_iwae" and config.eval.nll_k == 0:
        raise UserError(f"{what} needs eval.nll_k > 0 in the space, got 0; e.g. nll_k=100")


def default_metric(configs: Sequence[TrainConfig]) -> Metric:
    """Return the default metric of these configs: the bound, unless there is none or it misorders them."""
    first = configs[0]
    name = "val/elbo"
    if not first.posterior.has_density:
        name = "val/reconstruction" if first.corruption.kind == "none" else "val/denoise_error"
    elif _elbo_misorders(configs):
        name = "val/nll_iwae"
    return Metric(name=name, direction=RANKING[name])


def _elbo_misorders(configs: Sequence[TrainConfig]) -> str | None:
    """Why the ELBO does not order these configs by log p(x), if it does not."""
    if any(config.objective.importance_weighted for config in configs):
        return "the space has an importance-weighted objective, which tightens another bound"
    families = sorted({config.posterior.kind for config in configs})
    if len(families) > 1:
        return (
            f"the space has posteriors of different families ({', '.join(families)}), whose bounds differ in tightness"
        )
    return None


def check_metric(
    metric: Metric, configs: Sequence[TrainConfig], *, beside: Sequence[str] = (), cost: bool = False
) -> None:
    """Refuse a metric that these configs don't report, or that doesn't order them.

    ``beside``: the objectives that balance one term of the bound, so that it may be one of them. ``cost``: it is
    one of several objectives, so it may measure cost.

    Raises:
        UserError: with the reason and the metric to use instead.

    """
    first = configs[0]
    if metric.name in _COSTS and not cost:
        raise UserError(
            f"metric {metric.name!r} alone would find the cheapest model; give it as one of several --metric"
        )
    if any(config.data.validation == 0 for config in configs):
        raise UserError(
            f"metric {metric.name!r} needs a validation split, but the space sets data.validation to 0; "
            "selecting on the training data or on test is refused"
        )
    if metric.name in OF_A_DENSITY and (bare := [c.posterior.kind for c in configs if not c.posterior.has_density]):
        raise UserError(
            f"metric {metric.name!r} does not exist for posterior.kind {bare[0]!r}: a code without a density has no bound; "
            "use val/reconstruction"
        )
    if metric.name in _OF_A_POINT and any(config.posterior.has_density for config in configs):
        raise UserError(f"metric {metric.name!r} is reported for posterior.kind 'deterministic' alone; use val/elbo")
    if metric.name in _BOUNDS and (reason := _elbo_misorders(configs)):
        raise UserError(
            f"metric {metric.name!r} misorders these models: {reason}; use val/nll_iwae with eval.nll_k, e.g. 100"
        )
    if metric.name == "val/denoise_error":
        corruptions = {config.corruption for config in configs}
        if len(corruptions) > 1 or first.corruption.kind == "none":
            found = "the space varies corruption" if len(corruptions) > 1 else "corruption.kind is 'none'"
            raise UserError(
                f"metric 'val/denoise_error' needs one corruption for all trials, but {found}; fix it in the space"
            )
    _refuse_unasked(f"metric {metric.name!r}", metric.name, first)
    if metric.name == "val/bits_per_dimension" and not _has_bits(first):
        raise UserError(
            "metric 'val/bits_per_dimension' has no meaning here: cross-entropy on grey pixels and densities without "
            "dequantisation have no bits per dimension; use val/elbo"
        )
    if metric.name in _ONE_TERM and metric.name not in beside:
        swept = _swept_weights(configs)
        if swept:
            raise UserError(
                f"metric {metric.name!r} is refused while {swept} is swept: a swept value alone drives it to its "
                "optimum (β = 0 gives the best reconstruction, a large β no KL at all); use val/elbo"
            )


def _has_bits(config: TrainConfig) -> bool:
    if config.data.binarisation == "expected":
        return False
    return config.likelihood.discrete or config.data.dequantise


def _swept_weights(configs: Sequence[TrainConfig]) -> str | None:
    """The first setting of the objective that is not the same in all configs: it weighs one term against another."""
    values = [_flat(to_dict(config)["objective"], "objective") for config in configs]
    for path in sorted(set().union(*values)):
        if path.startswith(("objective.optimizer", "objective.hidden")):
            continue  # the adversary's own
        if len({json.dumps(value.get(path)) for value in values}) > 1:
            return path
    return None


def _flat(value: object, path: str) -> dict[str, object]:
    if isinstance(value, dict):
        return {name: leaf for key, inner in value.items() for name, leaf in _flat(inner, f"{path}.{key}").items()}
    return {path: value}

"""What a sweep may rank by. ``docs/reading-the-numbers.md`` has the reasons at length."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from research.errors import UserError
from research.settings import Metric
from vae.config import nearest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vae.train_config import TrainConfig

# Every scalar that a validation row may hold and that orders trials, with the better direction.
_DIRECTIONS: dict[str, Literal["maximize", "minimize"]] = {
    "val/elbo": "maximize",
    "val/reconstruction": "minimize",
    "val/kl": "minimize",
    "val/active_units": "maximize",
    "val/bits_per_dimension": "minimize",
    "val/nll_iwae": "minimize",
}
_ONE_TERM = ("val/reconstruction", "val/kl", "val/active_units")


def parse_metric(text: str) -> Metric:
    """``val/elbo`` or ``val/elbo:max`` -> the metric with its direction.

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
    if name not in _DIRECTIONS:
        raise UserError(f"unknown metric {name!r}: {nearest(name, _DIRECTIONS)}")
    usual = _DIRECTIONS[name]
    if direction not in {"", usual, usual[:3]}:
        raise UserError(f"metric {name!r} is better {usual[:3]}imised; got direction {direction!r}, leave it out")
    return Metric(name=name, direction=usual)


def check_metric(metric: Metric, configs: Sequence[TrainConfig]) -> None:
    """Refuse a metric that these configs don't report, or that doesn't order them.

    Raises:
        UserError: with the reason and the metric to use instead.

    """
    first = configs[0]
    if any(config.data.validation == 0 for config in configs):
        raise UserError(
            f"metric {metric.name!r} needs a validation split, but the space sets data.validation to 0; "
            "selecting on the training data or on test is refused"
        )
    if metric.name == "val/nll_iwae" and first.eval.nll_k == 0:
        raise UserError("metric 'val/nll_iwae' needs eval.nll_k > 0 in the space, got 0; e.g. nll_k=100")
    if metric.name == "val/bits_per_dimension" and not _has_bits(first):
        raise UserError(
            "metric 'val/bits_per_dimension' has no meaning here: cross-entropy on grey pixels and densities without "
            "dequantisation have no bits per dimension; use val/elbo"
        )
    if metric.name in _ONE_TERM:
        swept = _swept_weights(configs)
        if swept:
            raise UserError(
                f"metric {metric.name!r} is refused while {swept} is swept: a swept value alone drives it to its "
                "optimum (β = 0 gives the best reconstruction, a large β no KL at all); use val/elbo"
            )


def _has_bits(config: TrainConfig) -> bool:
    if config.data.binarisation == "expected":
        return False
    return config.likelihood.kind != "gaussian" or config.data.dequantise


def _swept_weights(configs: Sequence[TrainConfig]) -> str | None:
    """The first setting that weighs the KL against the reconstruction and is not the same in all configs."""
    if len({config.objective.beta for config in configs}) > 1:
        return "objective.beta"
    if len({config.objective.free_bits for config in configs}) > 1:
        return "objective.free_bits"
    if len({config.objective.beta_schedule for config in configs}) > 1:
        return "objective.beta_schedule"
    return None

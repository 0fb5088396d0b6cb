"""The registry of metrics: for each figure of a row, its unit, its direction, and what it depends on.

Directions, refusals, tables and comparisons are derived from it. A user's own metric (``vae.external_metric``) is not
in this table. It comes with the config, and :func:`depends_on` recognises its name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Direction = Literal["maximize", "minimize"]
Kind = Literal["bound", "term", "estimate", "error", "cost", "diagnostic", "setting"]
Needs = Literal["density", "point", "corruption", "nll_k", "classified_samples", "bits"]


@dataclass(frozen=True)
class Entry:
    """One metric.

    ``direction`` is None for a figure that may not rank. ``kind`` ``term`` is one term of the objective, which a swept weight
    drives to its optimum; ``bound`` is a bound on log p(x), whose tightness depends on the posterior; ``cost`` ranks
    only beside another metric. ``needs`` is a part or a setting without which no row has the figure. ``facts`` are the
    facts besides the measure that its value depends on (``research.ledger.comparison``).
    """

    name: str
    unit: str
    direction: Direction | None
    kind: Kind
    needs: Needs | None = None
    facts: tuple[str, ...] = ()


_SAMPLED = ("eval.seed", "eval.samples")
_WEIGHTED = ("eval.seed", "eval.nll_k", "eval.nll_images", "eval.subset")
_ENTRIES = (
    Entry("val/elbo", "nats", "maximize", "bound", "density", (*_SAMPLED, "bound")),
    Entry("val/bits_per_dimension", "bits", "minimize", "bound", "bits", (*_SAMPLED, "bound")),
    Entry("val/reconstruction", "nats", "minimize", "term", None, _SAMPLED),
    Entry("val/kl", "nats", "minimize", "term", "density", _SAMPLED),
    Entry("val/active_units", "dimensions", "maximize", "term", "density"),
    Entry("val/nll_iwae", "nats", "minimize", "estimate", "nll_k", _WEIGHTED),
    Entry("val/squared_error", "x²", "minimize", "term", "point"),
    Entry("val/denoise_error", "x²", "minimize", "error", "corruption", ("eval.seed", "corruption")),
    Entry(
        "val/samples_as_asked", "share", "maximize", "estimate", "classified_samples",
        ("eval.seed", "eval.classified_samples"),
    ),
    Entry("model/parameters", "", "minimize", "cost"),
    Entry("time/train_seconds", "s", "minimize", "cost"),
    Entry("time/evaluation_seconds", "s", None, "diagnostic"),
    Entry("time/examples_per_second", "1/s", None, "diagnostic"),
    Entry("val/collapsed", "", None, "diagnostic", "density"),
    Entry("val/kl_per_dimension", "nats", None, "diagnostic", "density"),
    Entry("val/kl_samples", "", None, "setting", "density"),
    Entry("val/kl_standard_error", "nats", None, "diagnostic", "density"),
    Entry("val/nll_iwae_standard_error", "nats", None, "diagnostic", "nll_k"),
    Entry("val/nll_iwae_change_from_half_k", "nats", None, "diagnostic", "nll_k"),
    Entry("val/nll_iwae_k", "", None, "setting", "nll_k"),
    Entry("val/nll_iwae_images", "", None, "setting", "nll_k"),
    Entry("val/classifier_accuracy", "share", None, "diagnostic", "classified_samples"),
    Entry("val/at_floor", "share", None, "diagnostic"),
)  # fmt: skip
METRICS: dict[str, Entry] = {entry.name: entry for entry in _ENTRIES}
RANKING: dict[str, Direction] = {entry.name: entry.direction for entry in _ENTRIES if entry.direction is not None}


def of_kind(*kinds: Kind) -> frozenset[str]:
    """Return the names of the metrics of these kinds that may rank."""
    return frozenset(name for name in RANKING if METRICS[name].kind in kinds)


OF_A_DENSITY = frozenset(RANKING) & {"val/elbo", "val/kl", "val/active_units", "val/bits_per_dimension", "val/nll_iwae"}


def external_fact(metric: str) -> str:
    """Return the name of the fact that says which code and settings a user's metric ``val/NAME`` has."""
    return f"metric {metric}"


def depends_on(metric: str) -> tuple[str, ...]:
    """Return the facts besides the measure that ``metric`` depends on; for a user's own metric its code and settings."""
    return METRICS[metric].facts if metric in METRICS else (external_fact(metric),)

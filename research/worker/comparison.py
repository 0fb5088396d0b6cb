"""The facts by which the rows of a config may be ranked with others; see :mod:`research.ledger.comparison`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from research.ledger.comparison import IMPORTANCE_WEIGHTED, facts_of_config
from research.ledger.metrics import external_fact
from vae.measure import measure_of
from vae.serialization import to_dict

if TYPE_CHECKING:
    from research.ledger.events import Facts
    from vae.data import TrainingData
    from vae.train_config import TrainConfig


def facts_of(config: TrainConfig, measure: str, *, examples: int | None) -> Facts:
    """Return the facts of every row that ``config`` gives on a held-out split of ``examples`` examples.

    ``bound`` among them says how tight the ELBO is: the family of the posterior, and whether an importance-weighted
    objective trained it for another bound.
    """
    bound = config.posterior.kind + (IMPORTANCE_WEIGHTED if config.objective.importance_weighted else "")
    own: Facts = {external_fact(f"val/{metric.name}"): metric.identity for metric in config.metrics}
    return facts_of_config(to_dict(config), measure, bound, examples) | own


def facts_on_data(config: TrainConfig, data: TrainingData) -> Facts:
    """Return :func:`facts_of` of a config on the validation split of ``data``; empty where it has none."""
    if data.validation is None:
        return {}
    measure = measure_of(config, data.validation, levels=data.levels)
    return facts_of(config, str(measure), examples=len(data.validation))

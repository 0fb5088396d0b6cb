"""Remarks on the data of a run that are worth reading before it trains."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vae.likelihoods import Binomial
from vae.train_config import FEW_LEVELS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vae.data import TrainingData
    from vae.train_config import TrainConfig


def data_notes(data: TrainingData, configs: Iterable[TrainConfig]) -> list[str]:
    """Return one line for each remark on ``data``, as it was read and as ``configs`` score it."""
    notes = list(data.notes)
    too_narrow = data.levels > FEW_LEVELS and any(isinstance(config.likelihood, Binomial) for config in configs)
    if too_narrow:
        notes.append(
            f"a binomial is too narrow for values 0..{data.levels} and can be worse than a uniform guess: "
            "consider likelihood.kind 'discretised_logistic'"
        )
    return notes

"""The storage of the Optuna study, which can show a sampler some of its trials."""

from __future__ import annotations

import copy
from contextlib import contextmanager
from typing import TYPE_CHECKING

from optuna.storages import JournalStorage

if TYPE_CHECKING:
    from collections.abc import Container, Iterator

    from optuna.trial import FrozenTrial, TrialState


class Journal(JournalStorage):
    """Optuna's, with a way to show a sampler some of its trials."""

    _shown: list[int] | None = None

    @contextmanager
    def showing(self, trial_ids: list[int] | None) -> Iterator[None]:
        """Until the end of the block the storage lists these trials alone; None: all."""
        self._shown = trial_ids
        try:
            yield
        finally:
            self._shown = None

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,  # noqa: FBT001, FBT002 - Optuna's own
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        """Return the trials that are shown, as Optuna's own storage does."""
        if self._shown is None:
            return super().get_all_trials(study_id, deepcopy, states)
        listed = [self._replay_result.get_trial(trial_id) for trial_id in self._shown]
        listed = [trial for trial in listed if states is None or trial.state in states]
        return copy.deepcopy(listed) if deepcopy else listed

"""The ledger's trials as an Optuna study, told the truth: COMPLETE at full budget, PRUNED with its curve, FAIL with a reason.

The study is a view of the ledger: rebuilt at each start, written beside the sweep for optuna-dashboard, and
never read back. Trial n's sampler is seeded from (sweep seed, n), so a resumed sweep never draws again what it
drew before.
"""

from __future__ import annotations

import json
import warnings
from bisect import insort
from itertools import islice
from typing import TYPE_CHECKING, Any

import optuna
from optuna.distributions import distribution_to_json
from optuna.trial import TrialState

from research.ledger.events import TrialCreated, TrialFailed
from research.ledger.settings import RandomSearch, Tpe
from research.search.frozen import STATES, attributes_of, constraints_of, curve_of, frozen_trial, values_of
from research.search.journal import Journal
from research.search.samplers import build_sampler, of_learned
from research.search.spaces import SkippedDraw, SpaceError, draw
from research.search.study_file import MirroredJournal
from vae.seeds import derive
from vae.serialization import as_earlier, config_hash, to_dict

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from research.ledger.events import FailKind
    from research.ledger.log import Ledger
    from research.ledger.trial_view import TrialView
    from research.search.spaces import Space
    from vae.train_config import TrainConfig

SEEN = 1000  # finished trials that TPE draws from: its cost grows with them, and a draw should not wait for thousands
SEEN_BEST = 100  # of these the best complete ones; the others are the newest
_REPEATS = 3  # a sampler that draws what was drawn so often in a row has converged: the next draws are random


class StudyView:
    """The ledger's trials as an Optuna study; trial n is its trial n + the number of learned ones."""

    def __init__(self, ledger: Ledger, journal: Path) -> None:
        """A new study in ``journal``, which is replaced, with what was learned but without trials: see :meth:`add`."""
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.ledger = ledger
        for old in journal.parent.glob(f"{journal.name}*"):
            old.unlink()
        self.journal = MirroredJournal(journal)
        settings = ledger.settings
        self.several = len(settings.targets) > 1
        self.storage = Journal(self.journal)
        self.study = optuna.create_study(
            study_name=settings.name,
            storage=self.storage,
            directions=[target.direction for target in settings.targets],
            sampler=build_sampler(RandomSearch(), 0, 0),
        )
        if self.several:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                self.study.set_metric_names([target.name for target in settings.targets])
        learned = [trial for event in ledger.learned for trial in event.trials]
        for trial in learned:
            self.study.add_trial(of_learned(trial, settings))
        self.offset = len(learned)
        self.learned_ids = [trial._trial_id for trial in self.study.get_trials(deepcopy=False)]  # noqa: SLF001 - no other way
        self.untold: dict[int, None] = {}  # trials that the study has as running, in order
        self.results: list[int] = []  # trials that the study has as complete or pruned, in order
        self.storage_ids: list[int] = []  # Optuna's id of each trial, by number
        self.first_of: dict[str, int] = {}  # the trial that first had a config, by the config's identity

    def add(self, view: TrialView, *, ended: bool) -> None:
        """Add a trial of an earlier session: as it ended, or as RUNNING for :meth:`tell` to end."""
        ended = ended and view.terminal
        frozen = frozen_trial(self.ledger, view, ended=ended)
        # As study.add_trial does, which keeps the new trial's id to itself.
        self.storage_ids.append(self.storage.create_new_trial(self.study._study_id, template_trial=frozen))  # noqa: SLF001 - no other way
        self._remember(view)
        if not ended:
            self.untold[view.number] = None
        elif view.status in {"COMPLETE", "PRUNED"}:
            self.results.append(view.number)

    def ask(
        self, space: Space, number: int, why_incomparable: Callable[[TrainConfig], str | None] = lambda _: None
    ) -> TrialCreated:
        """Draw trial ``number`` and write it down; a draw that is not to be trained is ended at once.

        ``why_incomparable(config)``: why the rows of that config could not be ranked with the sweep's.
        """
        settings = self.ledger.settings
        wanted = settings.start_from[number] if number < len(settings.start_from) else None
        repeating = self.repeats(number) >= _REPEATS
        self.study.sampler = build_sampler(RandomSearch() if repeating else settings.sampler, settings.seed, number)
        with warnings.catch_warnings():
            # The space and its sampler were rehearsed: what Optuna still says is about parameters that come and go.
            warnings.simplefilter("ignore")
            if wanted is not None:
                self.study.enqueue_trial(dict(wanted.params))
            # Optuna looks for a trial that waits among all that it is shown.
            with self.storage.showing([] if wanted is None else None):
                trial = self.study.ask()
            assert trial.number == number + self.offset, "the study has the ledger's trials, in order"
            self.storage_ids.append(trial._trial_id)  # noqa: SLF001 - no other way
            self.untold[number] = None
            seed = derive(settings.seed, "train", number) % 2**31
            problem: tuple[FailKind, str] | None = None
            config: dict[str, Any] = {}
            digest = ""
            try:
                with self.storage.showing(self._seen()):
                    drawn = draw(space, trial, epochs=settings.epochs, seed=seed, data=settings.data)
                config, digest = to_dict(drawn), config_hash(drawn)
                if (reason := why_incomparable(drawn)) is not None:
                    problem = "incomparable", reason
            except SkippedDraw as error:
                problem = "impossible", str(error)
            except SpaceError as error:
                problem = "config", str(error)
        frozen = self._frozen(number)
        created = TrialCreated(
            trial=number,
            params=dict(frozen.params),
            distributions={name: distribution_to_json(d) for name, d in frozen.distributions.items()},
            config=config,
            config_hash=digest,
            seed=seed,
            sampler_seed=derive(settings.seed, "sampler", number),
            sampler_attributes=dict(frozen.system_attrs),
            source=None if wanted is None else wanted.source,
        )
        self.ledger.append(created)
        first = None if problem else self.first_of.get(_identity(created))
        if first is not None:
            problem = "duplicate", f"the same config as trial {first}, which is not trained twice"
        if problem is not None:
            self.ledger.append(TrialFailed(trial=number, kind=problem[0], reason=problem[1]))
        self._remember(self.ledger.trials[number])
        return created

    def _seen(self) -> list[int] | None:
        """Optuna's ids of the trials that the sampler may look at; None: all. A function of what the study was told.

        TPE parts what it sees into the best 25 (of several objectives, a tenth) and the others, among which an old one
        counts for less than a new one.
        """
        if not isinstance(self.ledger.settings.sampler, Tpe) or len(self.results) <= SEEN:
            return None
        complete = (v.number for v in self.ledger.in_order() if v.status == "COMPLETE" and v.number not in self.untold)
        seen = {*islice(complete, SEEN_BEST), *self.untold}
        newest = (number for number in reversed(self.results) if number not in seen)
        seen |= {*islice(newest, SEEN - SEEN_BEST)}
        return [*self.learned_ids, *(self.storage_ids[number] for number in sorted(seen))]

    def repeats(self, number: int) -> int:
        """Return how many of the draws just before trial ``number`` were duplicates, without another between."""
        count = 0
        while (view := self.ledger.trials.get(number - 1 - count)) is not None and view.fail_kind == "duplicate":
            count += 1
        return count

    def report(self, number: int, epoch: int, value: float) -> None:
        """Show a running trial's curve as it grows. Samplers don't read it before the trial is told."""
        if not self.several:  # Optuna keeps no curves beside several objectives
            self.storage.set_trial_intermediate_value(self.storage_ids[number], epoch, value)

    def tell(self, view: TrialView) -> None:
        """Tell how a trial ended. Telling again changes nothing."""
        if view.number not in self.untold:
            return
        del self.untold[view.number]
        storage = self.storage  # the study's own way needs the Trial object of ask()
        for name, value in attributes_of(self.ledger, view).items():
            storage.set_trial_user_attr(self.storage_ids[view.number], name, value)
        for name, value in constraints_of(self.ledger, view).items():
            storage.set_trial_system_attr(self.storage_ids[view.number], name, value)
        shown = self._frozen(view.number).intermediate_values
        for epoch, value in curve_of(self.ledger, view).items():
            if epoch not in shown:
                self.report(view.number, epoch, value)
        state = STATES[view.status]
        # Optuna takes a PRUNED trial's value from the last of its curve.
        values = values_of(self.ledger, view, state) if state is TrialState.COMPLETE else None
        self.study.tell(view.number + self.offset, values, state=state)
        if state in {TrialState.COMPLETE, TrialState.PRUNED}:
            insort(self.results, view.number)

    def _frozen(self, number: int) -> optuna.trial.FrozenTrial:
        return self.storage.get_trial(self.storage_ids[number])

    def _remember(self, view: TrialView) -> None:
        if view.created.config and view.status != "SKIPPED":
            self.first_of.setdefault(_identity(view.created), view.number)


def _identity(created: TrialCreated) -> str:
    """Equal for configs that differ in nothing but their seed. A config of an earlier version lacks later fields."""
    values = {name: value for name, value in created.config.items() if name != "seed"}
    if isinstance(evaluation := values.get("eval"), dict):
        values["eval"] = as_earlier("Evaluation", evaluation)
    return json.dumps(values, sort_keys=True)

"""Optuna as Ray Tune's searcher, told the truth: COMPLETE at full budget, PRUNED with its curve, FAIL with a reason.

The study is a view of the ledger: rebuilt at each start, written beside the sweep for optuna-dashboard, and
never read back. Trial n's sampler is seeded from (sweep seed, n), so a resumed sweep never draws again what it
drew before.
"""

from __future__ import annotations

import json
import warnings
from typing import TYPE_CHECKING, Any

import optuna
from optuna.distributions import distribution_to_json, json_to_distribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState, create_trial
from ray.tune.search import Searcher

from research.ledger import TrialCreated, TrialFailed
from research.settings import RandomSearch, Tpe
from research.spaces import SpaceError, draw
from vae.seeds import derive
from vae.serialization import config_hash, to_dict

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from research.ledger import Ledger, TrialView
    from research.settings import Sampler
    from research.spaces import Space

_STATES = {"COMPLETE": TrialState.COMPLETE, "PRUNED": TrialState.PRUNED, "FAIL": TrialState.FAIL}
_CONSTRAINT_PREFIX = "constraints:"  # where Trial.set_constraint of Optuna 5 writes, and its samplers look
_FAR = 1e9  # stands for infinity, which JSON has not
_FAILURES_IN_A_ROW = 10  # draws that are no config; more means that the space, not the draw, is wrong


def build_sampler(sampler: Sampler, seed: int) -> optuna.samplers.BaseSampler:
    """The Optuna sampler for one draw."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        match sampler:
            case Tpe():
                return optuna.samplers.TPESampler(
                    n_startup_trials=sampler.startup_trials,
                    multivariate=True,
                    group=True,
                    constant_liar=True,
                    seed=seed % 2**32,
                )
            case RandomSearch():
                return optuna.samplers.RandomSampler(seed=seed % 2**32)


class StudyView:
    """The ledger's trials as an Optuna study."""

    def __init__(self, ledger: Ledger, journal: Path) -> None:
        """A new study in ``journal``, which is replaced, without trials yet: see :meth:`add`."""
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.ledger = ledger
        for old in journal.parent.glob(f"{journal.name}*"):
            old.unlink()
        self.study = optuna.create_study(
            study_name=ledger.settings.name,
            storage=JournalStorage(JournalFileBackend(str(journal))),
            direction=ledger.settings.metric.direction,
            sampler=build_sampler(RandomSearch(), 0),
        )
        self.told: set[int] = set()
        self.storage_ids: list[int] = []  # Optuna's id of each trial, by number

    def add(self, view: TrialView, *, ended: bool) -> None:
        """Add a trial of an earlier session: as it ended, or as RUNNING for :meth:`tell` to end."""
        created = view.created
        ended = ended and view.terminal
        state = _STATES[view.status] if ended else TrialState.RUNNING
        self.study.add_trial(
            create_trial(
                state=state,
                value=self._value(view, state),
                params=dict(created.params),
                distributions={name: json_to_distribution(text) for name, text in created.distributions.items()},
                system_attrs=dict(created.sampler_attributes) | (self._constraint_attributes(view) if ended else {}),
                user_attrs=self._attributes(view) if ended else {},
                intermediate_values=view.curve(self.ledger.settings.metric.name),
            )
        )
        self.storage_ids.append(self.study.get_trials(deepcopy=False)[-1]._trial_id)  # noqa: SLF001 - no other way
        if ended:
            self.told.add(view.number)

    def ask(self, space: Space, number: int) -> TrialCreated:
        """Draw trial ``number``. Raises SpaceError, with the trial left RUNNING, when the draw is no config."""
        settings = self.ledger.settings
        sampler_seed = derive(settings.seed, "sampler", number)
        self.study.sampler = build_sampler(settings.sampler, sampler_seed)
        trial = self.study.ask()
        assert trial.number == number, "the study has the ledger's trials, in order"
        self.storage_ids.append(trial._trial_id)  # noqa: SLF001 - no other way
        seed = derive(settings.seed, "train", number) % 2**31
        problem: SpaceError | None = None
        config: dict[str, Any] = {}
        digest = ""
        try:
            drawn = draw(space, trial, epochs=settings.epochs, seed=seed, data=settings.data)
            config, digest = to_dict(drawn), config_hash(drawn)
        except SpaceError as error:
            problem = error
        frozen = self._frozen(number)
        created = TrialCreated(
            trial=number,
            params=dict(frozen.params),
            distributions={name: distribution_to_json(d) for name, d in frozen.distributions.items()},
            config=config,
            config_hash=digest,
            seed=seed,
            sampler_seed=sampler_seed,
            sampler_attributes=dict(frozen.system_attrs),
        )
        self.ledger.append(created)
        if problem is not None:
            self.ledger.append(TrialFailed(trial=number, kind="config", reason=str(problem)))
        return created

    def report(self, number: int, epoch: int, value: float) -> None:
        """Show a running trial's curve as it grows. Samplers don't read it before the trial is told."""
        self.study._storage.set_trial_intermediate_value(self.storage_ids[number], epoch, value)  # noqa: SLF001

    def tell(self, view: TrialView) -> None:
        """Tell how a trial ended. Telling again changes nothing."""
        if view.number in self.told:
            return
        self.told.add(view.number)
        storage = self.study._storage  # noqa: SLF001 - the public way needs the Trial object of ask()
        for name, value in self._attributes(view).items():
            storage.set_trial_user_attr(self.storage_ids[view.number], name, value)
        for name, value in self._constraint_attributes(view).items():
            storage.set_trial_system_attr(self.storage_ids[view.number], name, value)
        shown = self._frozen(view.number).intermediate_values
        for epoch, value in view.curve(self.ledger.settings.metric.name).items():
            if epoch not in shown:
                self.report(view.number, epoch, value)
        state = _STATES[view.status]
        # Optuna takes a PRUNED trial's value from the last of its curve.
        value_told = self._value(view, state) if state is TrialState.COMPLETE else None
        self.study.tell(view.number, value_told, state=state)

    def _frozen(self, number: int) -> optuna.trial.FrozenTrial:
        return self.study.get_trials(deepcopy=False)[number]

    def _value(self, view: TrialView, state: TrialState) -> float | None:
        """The best value of the curve for COMPLETE, the last for PRUNED, None for what has none."""
        metric = self.ledger.settings.metric
        values = list(view.curve(metric.name).values())
        if state is TrialState.COMPLETE:
            return max(values) if metric.direction == "maximize" else min(values)
        return values[-1] if state is TrialState.PRUNED else None

    def _constraint_attributes(self, view: TrialView) -> dict[str, Any]:
        """By how much the trial misses each constraint, in Optuna's form: at most 0 is feasible."""
        named = zip(self.ledger.settings.constraints, self.ledger.violations(view), strict=True)
        return {f"{_CONSTRAINT_PREFIX}{constraint}": min(violation, _FAR) for constraint, violation in named}

    def _attributes(self, view: TrialView) -> dict[str, Any]:
        best = view.best(self.ledger.settings.metric)
        return {
            "config_hash": view.created.config_hash,
            "seed": view.created.seed,
            "best_epoch": None if best is None else best.epoch,
            "fail_kind": view.fail_kind,
            "reason": view.reason,
        }


class LedgerSearcher(Searcher):
    """Hands out what is to be run next: trials cut short first, then new draws, then nothing."""

    def __init__(
        self,
        ledger: Ledger,
        study: StudyView,
        space: Space,
        *,
        assign: Callable[[TrialView], dict[str, Any]],
        on_end: Callable[[TrialView], None],
        ended_with_error: Callable[[int], bool],
        stopping: Callable[[], bool],
    ) -> None:
        """``assign``: what a worker is sent. ``ended_with_error(n)``: record it; True if n is to run again.

        ``stopping()``: somebody asked to stop, so a trial that leaves its worker has not ended.
        """
        super().__init__()
        self.ledger = ledger
        self.study = study
        self.space = space
        self.assign = assign
        self.on_end = on_end
        self.ended_with_error = ended_with_error
        self.numbers: dict[str, int] = {}  # Tune's trial id -> ours, running ones
        self.stopping = stopping
        self.problem: SpaceError | None = None
        views = [ledger.trials[number] for number in sorted(ledger.trials)]
        self.todo = [view.number for view in views if not view.terminal]
        for view in views:
            study.add(view, ended=view in self._settled(len(views)))

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its searcher into files that nobody reads: the ledger is the truth."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the ledger has it."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore: the ledger has it."""

    def visible_to(self, number: int) -> list[TrialView]:
        """The trials that trial ``number`` may be sampled and stopped by.

        In the default mode all that there are; in deterministic mode those numbered n − W and lower, W being
        the number of slots, so that the sweep depends on its seed and W, not on who finishes first.
        """
        views = self.ledger.trials
        if not self.ledger.settings.deterministic:
            return list(views.values())
        window = self.ledger.settings.resources.concurrent
        return [views[other] for other in range(max(0, number - window + 1)) if other in views]

    def _settled(self, number: int) -> list[TrialView]:
        """The ended trials that trial ``number``'s sampler may know of."""
        return [view for view in self.visible_to(number) if view.terminal]

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override] # ray's own type leaves out FINISHED
        """The next assignment; None while it must wait; FINISHED when all trials have ended."""
        if self.stopping() or len(self.numbers) >= self.ledger.settings.resources.concurrent:
            return None
        if self.todo:
            number = self.todo.pop(0)
        else:
            drawn = self._draw()
            if drawn is None:
                return None if self.numbers and self.problem is None else str(Searcher.FINISHED)
            number = drawn
        self.numbers[trial_id] = number
        return self.assign(self.ledger.trials[number])

    def _draw(self) -> int | None:
        """A new trial's number; None when there is none to draw, now or at all."""
        settings = self.ledger.settings
        for _ in range(_FAILURES_IN_A_ROW):
            number = len(self.ledger.trials)
            if number >= settings.trials:
                return None
            if settings.deterministic and not all(view.terminal for view in self.visible_to(number)):
                return None
            for view in self._settled(number):
                self.study.tell(view)
            self.study.ask(self.space, number)
            view = self.ledger.trials[number]
            if not view.terminal:
                return number
            self.on_end(view)
        self.problem = SpaceError(
            f"{_FAILURES_IN_A_ROW} draws in a row were no runnable config; the last: {view.reason}"
        )
        return None

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """The scheduler has written the row already."""

    def on_trial_complete(
        self,
        trial_id: str,
        result: dict[str, Any] | None = None,
        error: bool = False,  # noqa: FBT001, FBT002 - Tune's own
    ) -> None:
        """A trial left its worker: told to the study if it has ended, run again if its worker was lost."""
        del result
        number = self.numbers.pop(trial_id, None)
        if number is None or self.stopping():
            return
        view = self.ledger.trials[number]
        if not view.terminal:
            if error:
                if self.ended_with_error(number):
                    self.todo = sorted([*self.todo, number])
                    return
            else:
                self.ledger.append(
                    TrialFailed(trial=number, kind="bug", reason="the trial returned before its last epoch")
                )
        if not self.ledger.settings.deterministic:
            self.study.tell(view)
        self.on_end(view)

    def tell_rest(self) -> None:
        """Tell the study whatever has ended: in deterministic mode the last trials are told to no sampler."""
        for number in sorted(self.ledger.trials):
            if self.ledger.trials[number].terminal:
                self.study.tell(self.ledger.trials[number])


def distributions_of(created: TrialCreated) -> dict[str, Any]:
    """A trial's distributions as plain JSON, for display."""
    return {name: json.loads(text) for name, text in created.distributions.items()}

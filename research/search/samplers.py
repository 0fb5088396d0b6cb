"""Which of Optuna's samplers draws a trial, and a rehearsal that finds what it would refuse before Ray starts."""

from __future__ import annotations

import inspect
import os
import random
import traceback
import warnings
from typing import TYPE_CHECKING, Any

import optuna
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState

from research.errors import UserError
from research.ledger.settings import Grid, NoScheduler, Nsga2, OptunaSampler, QuasiRandom, RandomSearch, Tpe
from research.search.frozen import constraint_attributes, understood
from research.search.spaces import SpaceError, draw, survey
from vae.config import nearest
from vae.seeds import derive

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from research.ledger.events import LearnedTrial
    from research.ledger.settings import Sampler, SweepSettings
    from research.search.spaces import Space
    from vae.train_config import TrainConfig

# Samplers of Optuna's that are ours by another name, or that can't be made from a seed and a few options.
_OTHERWISE = {
    "BaseSampler": "it is no sampler",
    "BaseGASampler": "it is no sampler",
    "BruteForceSampler": "it is --sampler grid",
    "GridSampler": "it wants the grid beside the space; --sampler grid reads it off the space",
    "PartialFixedSampler": "it wraps another; fix the parameters in the space",
    "QMCSampler": "it is --sampler quasi-random",
}
_REHEARSED = 14  # past the start-up of every sampler whose start-up is Optuna's default


class _Numbered(optuna.samplers.QMCSampler):
    """Trial n gets the n-th point. Optuna's own counter is in the study, which is rebuilt at each start."""

    def __init__(self, seed: int, number: int) -> None:
        super().__init__(scramble=True, seed=seed, warn_independent_sampling=False)
        self._number = number

    def sample_relative(
        self, study: optuna.Study, trial: optuna.trial.FrozenTrial, search_space: dict[str, Any]
    ) -> dict[str, Any]:
        # Coordinates go by the order of parameters, which a ledger that is read again gives sorted.
        return super().sample_relative(study, trial, dict(sorted(search_space.items())))

    def _find_sample_id(self, *_: object) -> int:
        return self._number


def _ordered(made: Any) -> Any:  # noqa: ANN401 - classes
    """A genetic sampler whose parents come in order of trials.

    Optuna gives them in another order at a generation's first draw than at the later ones, when it has them from the
    study: a sweep resumed in the middle of a generation would draw differently from its uninterrupted twin.
    """

    def get_parent_population(self: Any, study: optuna.Study, generation: int) -> list[optuna.trial.FrozenTrial]:  # noqa: ANN401
        return sorted(made.get_parent_population(self, study, generation), key=lambda trial: trial.number)

    return type(made.__name__, (made,), {"get_parent_population": get_parent_population})


class _Exhaustive(optuna.samplers.BruteForceSampler):
    """Without its own end of the study, which is possible in Optuna's loop alone: ours ends at the first repeat."""

    def after_trial(self, *_: object) -> None:
        pass


def build_sampler(sampler: Sampler, seed: int, number: int) -> optuna.samplers.BaseSampler:
    """The Optuna sampler that draws trial ``number`` of a sweep seeded ``seed``.

    Each draw has a seed of its own, so that a resumed sweep never repeats one.
    """
    own = derive(seed, "sampler", number) % 2**32
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        match sampler:
            case Tpe():
                return optuna.samplers.TPESampler(
                    n_startup_trials=sampler.startup_trials,
                    multivariate=True,
                    group=True,
                    constant_liar=True,
                    seed=own,
                )
            case RandomSearch():
                return optuna.samplers.RandomSampler(seed=own)
            case Grid():
                return _Exhaustive(seed=own)
            case QuasiRandom():
                # One sequence for the whole sweep: its scrambling may not change with the trial.
                return _Numbered(derive(seed, "sampler") % 2**32, number)
            case Nsga2():
                genetic: optuna.samplers.BaseSampler = _ordered(optuna.samplers.NSGAIISampler)(
                    population_size=sampler.population, seed=own
                )
                return genetic
            case OptunaSampler():
                made = _class_of(sampler.name)
                seeded = {"seed": own} if "seed" in inspect.signature(made).parameters else {}
                if issubclass(made, optuna.samplers.BaseGASampler):
                    made = _ordered(made)
                built: optuna.samplers.BaseSampler = made(**seeded | dict(sampler.options))
                return built


def _class_of(name: str) -> Any:  # noqa: ANN401 - a class
    if name in _OTHERWISE:
        raise UserError(f"--sampler {name!r} can't be used: {_OTHERWISE[name]}")
    found = getattr(optuna.samplers, name, None)
    if not (inspect.isclass(found) and issubclass(found, optuna.samplers.BaseSampler)):
        ours = ["tpe", "random", "grid", "quasi-random", "nsga2"]
        theirs = [n for n in optuna.samplers.__all__ if n.endswith("Sampler") and n not in _OTHERWISE]
        raise UserError(f"unknown --sampler {name!r}: {nearest(name, [*ours, *theirs])}")
    return found


def rehearse(
    space: Space,
    settings: SweepSettings,
    learned: Sequence[LearnedTrial] = (),
    why_incomparable: Callable[[TrainConfig], str | None] = lambda _: None,
) -> None:
    """Let the sampler draw from the space, with invented results, in memory.

    ``why_incomparable(config)``: why the rows of that config could not be ranked with the sweep's.

    Raises:
        UserError: it can't be made, or refuses the space, the objectives or what early stopping leaves it; a draw gives
            rows that could not be ranked with the sweep's.

    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if isinstance(settings.sampler, Grid):
        _refuse_ranges(space, settings)
    name = getattr(settings.sampler, "name", settings.sampler.kind)
    invented = random.Random(0)  # noqa: S311 - no secret
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            study = optuna.create_study(directions=[target.direction for target in settings.targets])
            for trial in learned:
                study.add_trial(of_learned(trial, settings))
            for number in range(_REHEARSED):
                study.sampler = build_sampler(settings.sampler, settings.seed, number)
                wanted = settings.start_from[number].params if number < len(settings.start_from) else None
                drawn = _rehearse_one(study, space, settings, wanted, invented)
                named = f"space {space.source.name!r}"
                if wanted is not None:
                    named = f"--start-from {settings.start_from[number].source!r}"
                _refuse_incomparable(named, None if drawn is None else why_incomparable(drawn))
    except UserError:
        raise
    except Exception as error:
        line = " ".join(str(error).split()).partition(". ")[0]
        raise UserError(
            f"--sampler {name!r} refuses this sweep ({type(error).__name__}: {line}); choose another, e.g. tpe"
        ) from error


def _refuse_incomparable(named: str, reason: str | None) -> None:
    if reason is not None:
        raise UserError(f"{named} gives a trial that can't be ranked with the others: {reason}")


def _refuse_ranges(space: Space, settings: SweepSettings) -> None:
    for name, distribution in survey(space, epochs=settings.epochs, seed=settings.seed).parameters.items():
        if isinstance(distribution, FloatDistribution) and not distribution.single() and distribution.step is None:
            raise UserError(
                f"--sampler grid needs finite parameters, and {name!r} is a range without steps: give it a step or make "
                "it a choice in the space"
            )


def _in_a_sampler(error: BaseException) -> bool:
    """Return True if ``error``, raised while the space asked for a parameter, is the sampler's and not the space's own."""
    files = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    return any(f"{os.sep}optuna{os.sep}samplers{os.sep}" in file for file in files)


def _rehearse_one(
    study: optuna.Study, space: Space, settings: SweepSettings, wanted: dict[str, Any] | None, invented: random.Random
) -> TrainConfig | None:
    """Draw one config, tell the study an invented result, and return the config; None where the draw gave none."""
    if wanted is not None:
        study.enqueue_trial(wanted)
    trial = study.ask()
    drawn: TrainConfig | None = None
    problem = ""
    try:
        drawn = draw(space, trial, epochs=settings.epochs, seed=0, data=settings.data)
    except SpaceError as error:
        if error.__cause__ is not None and _in_a_sampler(error.__cause__):
            raise error.__cause__ from None
        problem = str(error)
    if wanted is not None:
        _check_wanted(wanted, trial, problem)
    several = len(settings.targets) > 1
    pruned = trial.number % 3 == 2 and not isinstance(settings.scheduler, NoScheduler)  # noqa: PLR2004 - every third
    if drawn is None:
        study.tell(trial, state=TrialState.FAIL)
    elif pruned:
        if not several:
            trial.report(invented.random(), 1)
        study.tell(trial, state=TrialState.PRUNED)
    else:
        study.tell(trial, [invented.random() for _ in settings.targets])
    return drawn


def _check_wanted(wanted: dict[str, Any], trial: optuna.Trial, problem: str) -> None:
    """Check that the space took the parameters that it was to start from."""
    for name, value in wanted.items():
        if name not in trial.params:
            raise UserError(
                f"--start-from gives {name!r}, which the space does not ask for with the other parameters given: "
                f"{nearest(name, trial.params)}"
            )
        distribution = trial.distributions[name]
        try:
            optuna.trial.create_trial(value=0.0, params={name: value}, distributions={name: distribution})
        except (TypeError, ValueError):
            raise UserError(
                f"--start-from gives {name}={value!r}, which is not in the space's range: {distribution}"
            ) from None
    if problem:
        raise UserError(f"--start-from: {problem}")


def of_learned(trial: LearnedTrial, settings: SweepSettings) -> optuna.trial.FrozenTrial:
    """A finished trial of another sweep, whose targets and constraints are those of ``settings``, as Optuna takes it."""
    with understood(f"trial {trial.trial}, which the sweep learned from another"):
        several = len(settings.targets) > 1
        curve = {} if several else {int(epoch): value for epoch, value in trial.curve.items()}
        last = [] if several or trial.complete else list(curve.values())[-1:]
        return optuna.trial.create_trial(
            state=TrialState.COMPLETE if trial.complete else TrialState.PRUNED,
            values=list(trial.values) if trial.complete else last or None,
            params=dict(trial.params),
            distributions={
                n: optuna.distributions.json_to_distribution(text) for n, text in trial.distributions.items()
            },
            intermediate_values=curve,
            user_attrs={"learned_from": trial.trial},
            system_attrs=constraint_attributes(settings.constraints, trial.violations),
        )

"""Search spaces: found by name or path, loaded, and asked for configs."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import optuna

from research.errors import CorruptFile, UserError, storing
from research.ledger.settings import SpaceSource
from research.paths import whole
from research.search.choices import checked_choices
from research.search.no_secrets import refuse_in_source, why_not
from research.store.mirror import store_of
from vae.config import ConfigError, nearest
from vae.seeds import derive
from vae.serialization import explain, in_sweep_of, to_dict, with_values
from vae.system.user_code import UserCodeExit, run_source, user_code
from vae.train_config import TrainConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from research.ledger.log import Ledger

import search_spaces
from vae.durable import read_text, replace


@dataclass(frozen=True)
class Space:
    """A loaded space: its function and the source that it came from."""

    function: Callable[[optuna.Trial], object]  # a TrainConfig, if the person kept to it
    source: SpaceSource


def built_in_names() -> list[str]:
    """The spaces that come with the project."""
    folder = Path(search_spaces.__file__).parent
    return sorted(path.stem for path in folder.glob("*.py") if path.stem != "__init__")


def load_space(name: str) -> Space:
    """The space called ``name``: one in ``search_spaces/``, or a path to a Python file that defines ``space``.

    Raises:
        UserError: there is no such space, or its file can't be imported, or has no function ``space``.

    """
    path = _path_of(name)
    source = _read(name, path)
    return Space(function=_import_function(path, source), source=source)


def load_recorded(source: SpaceSource, copy: Path) -> Space:
    """Return the space that a sweep recorded: its original file where that is unchanged, else the sweep's own ``copy``.

    The hash is compared first: no other file is run.
    """
    try:
        path = _path_of(source.name)
        unchanged = _read(source.name, path).sha256 == source.sha256
    except UserError:
        unchanged = False
    if unchanged:
        return Space(function=_import_function(path, source), source=source)
    # A mirror may be new, or older than the space: the source is in the ledger.
    if store_of(copy.parent) is not None or not copy.exists():
        with storing(copy):
            replace(copy, source.source.encode())
    try:
        text = read_text(copy)
    except (OSError, UnicodeDecodeError) as error:
        raise CorruptFile(f"{copy} can't be read ({error}): remove it, the ledger has it too") from None
    if hashlib.sha256(text.encode()).hexdigest() != source.sha256:
        raise CorruptFile(
            f"{copy} was altered since the sweep began: remove it, the ledger has it too; or start a new sweep"
        )
    return Space(function=_import_function(copy, source), source=source)


def of_sweep(space: Space, ledger: Ledger) -> Space:
    """Return ``space`` with the evaluation rules that the sweep began with, as its rows are ranked together.

    A space that does not name a rule gives today's, and a sweep that began before the rule existed goes on without it.
    """
    recorded = next((view.created.config for view in ledger.trials.values() if view.created.config), None)
    if recorded is None:
        recorded = {} if ledger.settings.takes_first else None
    if recorded is None:
        return space

    def function(trial: optuna.Trial) -> object:
        config = space.function(trial)
        if not isinstance(config, TrainConfig):
            return config
        return in_sweep_of(config, recorded)

    return dataclasses.replace(space, function=function)


def _path_of(name: str) -> Path:
    if name in built_in_names():
        return Path(search_spaces.__file__).parent / f"{name}.py"
    path = whole(name)
    if not path.is_file():
        hint = nearest(name, built_in_names())
        raise UserError(f"unknown space {name!r}: neither a file nor a name in search_spaces/; {hint}")
    return path


def _read(name: str, path: Path) -> SpaceSource:
    try:
        text = read_text(path)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"space {name!r} can't be read: {error}") from None
    return SpaceSource(name=name, source=text, sha256=hashlib.sha256(text.encode()).hexdigest())


def run_recorded(source: SpaceSource) -> Callable[[optuna.Trial], object]:
    """Run a source that lies in no file, and return its function ``space``.

    Raises:
        UserError: it can't be run.

    """
    return _import_function(Path(f"{source.name}.py"), source)


def _import_function(path: Path, source: SpaceSource) -> Callable[[optuna.Trial], object]:
    """Run ``source``, which was read from ``path``, and return its function ``space``."""
    name = source.name
    spec = importlib.util.spec_from_file_location(f"_space_{path.stem}", path)
    if spec is None or path.suffix != ".py":
        raise UserError(f"space {name!r} must be a Python file (.py)")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)  # a space may import what lies beside it
    try:
        with user_code(f"space {name!r}"):
            run_source(module, source.source.encode(), path)
    except UserCodeExit as error:
        raise UserError(str(error)) from error
    except Exception as error:
        raise UserError(f"space {name!r} can't be imported: {_one_line(error)}") from error
    finally:
        with contextlib.suppress(ValueError):  # the space may have removed it
            sys.path.remove(folder)
    function = getattr(module, "space", None)
    if not callable(function):
        raise UserError(f"space {name!r} must define a function space(trial) -> TrainConfig")
    typed: Callable[[optuna.Trial], object] = function
    return typed


class SpaceError(UserError):
    """A draw from the space that is not a runnable config."""


class SkippedDraw(SpaceError):
    """The space raised ``optuna.TrialPruned``: it knows that this combination is impossible."""


def draw(space: Space, trial: optuna.Trial, *, epochs: int | None, seed: int, data: str | None = None) -> TrainConfig:
    """The config that the space gives for ``trial``, with the sweep's epochs and the trial's own seed.

    ``data``: the kind of a set to train on in place of the space's own, seen in the same way (binarised or not).

    Raises:
        SpaceError: the space raised, or gave something else than a TrainConfig.

    """
    checked_choices(trial)
    try:
        with user_code(f"space {space.source.name!r}"):
            config = space.function(trial)
    except UserCodeExit as error:
        raise SpaceError(str(error)) from error
    except optuna.TrialPruned as reason:
        raise SkippedDraw(f"space {space.source.name!r} skipped the draw: {reason}") from None
    except Exception as error:
        raise SpaceError(f"space {space.source.name!r}: {_one_line(error)}") from error
    if not isinstance(config, TrainConfig):
        kind = type(config).__name__
        raise SpaceError(f"space {space.source.name!r} must return a TrainConfig, got {kind}")
    if data is not None:
        config = on_other_data(config, data)
    if (problem := why_not("the config", to_dict(config))) is not None:
        raise SpaceError(f"space {space.source.name!r}: {problem}")
    try:
        return dataclasses.replace(config, seed=seed, epochs=config.epochs if epochs is None else epochs)
    except ValueError as error:
        raise SpaceError(f"space {space.source.name!r} with --epochs {epochs}: {_one_line(error)}") from None


def on_other_data(config: TrainConfig, kind: str) -> TrainConfig:
    """``config`` on the set called ``kind``, binarised or dequantised as its own is.

    Raises:
        ConfigError: there is no such set, or it needs more than its name.

    """
    if kind == config.data.kind:
        return config
    fields = {"kind": kind, "binarisation": config.data.binarisation, "dequantise": config.data.dequantise}
    return with_values(config, {f"data.{name}": value for name, value in fields.items()})


@dataclass(frozen=True)
class Survey:
    """Configs drawn at random from a space without training any: what it can produce, as far as seen."""

    configs: list[TrainConfig]
    parameters: dict[str, optuna.distributions.BaseDistribution]
    skipped: int  # draws that the space itself called impossible (optuna.TrialPruned)


def survey(space: Space, *, epochs: int | None, seed: int, draws: int = 50, data: str | None = None) -> Survey:
    """Draw ``draws`` configs at random.

    Raises:
        UserError: the space's source holds a secret. SpaceError: a draw is no runnable config, or the space skipped all.

    """
    refuse_in_source(space.source)
    configs, skipped = [], 0
    parameters: dict[str, optuna.distributions.BaseDistribution] = {}
    for trial, drawn in random_draws(space, epochs=epochs, seed=seed, count=draws, data=data):
        match drawn:
            case SkippedDraw():
                skipped += 1
                if skipped == draws:
                    raise drawn
            case SpaceError():
                chosen = ", ".join(f"{name}={value!r}" for name, value in trial.params.items())
                raise SpaceError(f"{drawn}" + (f" (drawn with {chosen})" if chosen else "")) from None
            case ConfigError():
                raise drawn
            case _:
                configs.append(drawn)
        parameters |= trial.distributions
    return Survey(configs=configs, parameters=parameters, skipped=skipped)


def random_draws(
    space: Space, *, epochs: int | None, seed: int, count: int, data: str | None
) -> Iterator[tuple[optuna.Trial, TrainConfig | SpaceError | ConfigError]]:
    """``count`` draws at random, each with what came of it: a config with training seed 0, or why there is none.

    A longer list of one seed begins with a shorter one.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=derive(seed, "survey") % 2**32))
    for _ in range(count):
        trial = study.ask()
        drawn: TrainConfig | SpaceError | ConfigError
        try:
            drawn = draw(space, trial, epochs=epochs, seed=0, data=data)
        except (SpaceError, ConfigError) as error:
            drawn = error
        yield trial, drawn
        study.tell(trial, state=optuna.trial.TrialState.FAIL)


def _one_line(error: BaseException) -> str:
    from pydantic import ValidationError  # noqa: PLC0415 - only when something went wrong

    if isinstance(error, ValidationError):
        return explain(error)
    text = " ".join(str(error).split())
    return text if isinstance(error, ConfigError) else f"{type(error).__name__}: {text}"

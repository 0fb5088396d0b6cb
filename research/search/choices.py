"""The choices that a space may offer: values that survive JSON unchanged, because the ledger and Optuna keep them as JSON."""

from __future__ import annotations

import json
import math
import warnings
from typing import TYPE_CHECKING, Any

from research.search.no_secrets import why_not
from vae.config import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import optuna


def checked_choices(trial: optuna.Trial) -> None:
    """Let ``trial`` check the choices that it is given, before Optuna stores them.

    A number of NumPy or torch becomes Python's own. ``suggest_categorical`` raises ConfigError for a choice that is no
    JSON, and for one that holds a secret.
    """
    suggest = trial.suggest_categorical

    def suggest_categorical(name: str, choices: Sequence[Any]) -> Any:  # noqa: ANN401 - Optuna's own signature
        plain = [_plain(choice) for choice in choices]
        for choice in plain:
            if not _is_json(choice):
                raise ConfigError(f"parameter {name!r} has the choice {choice!r}, {_remedy(name, choice)}")
        if (problem := why_not(f"parameter {name!r}", plain)) is not None:
            raise ConfigError(problem)
        with warnings.catch_warnings():
            # Optuna's warning that lists are no choices for a database: a journal keeps what JSON keeps.
            warnings.simplefilter("ignore", UserWarning)
            return suggest(name, plain)

    trial.suggest_categorical = suggest_categorical  # type: ignore[method-assign] # of this trial alone


def _plain(choice: Any) -> Any:  # noqa: ANN401 - whatever a space offers
    """NumPy's scalars, and arrays and tensors without dimensions, as Python's numbers; anything else as it is."""
    if type(choice).__module__.partition(".")[0] in {"numpy", "torch"} and getattr(choice, "shape", None) == ():
        return choice.item()
    return choice


def _is_json(choice: object) -> bool:
    """Return True if JSON gives the choice back as it is: a tuple would come back as a list."""
    if isinstance(choice, float):
        return math.isfinite(choice)
    try:
        back = json.loads(json.dumps(choice, allow_nan=False))
    except (TypeError, ValueError, RecursionError):
        return False
    return (type(back) is type(choice) and bool(back == choice)) or isinstance(choice, str | int)


def _remedy(name: str, choice: object) -> str:
    if isinstance(choice, float):
        return "which is no finite number: leave it out, or give it a name as text"
    if isinstance(choice, tuple):
        text = "-".join(map(str, choice)) or "none"
        return (
            f"a tuple, which JSON gives back as a list: offer texts and look the value up, e.g. "
            f"{{{text!r}: {choice!r}, ...}}[trial.suggest_categorical({name!r}, [{text!r}, ...])]"
        )
    return (
        f"of type {type(choice).__name__}, which JSON does not give back as it is: offer texts or numbers and look the value "
        f"up, e.g. {{'a': ..., 'b': ...}}[trial.suggest_categorical({name!r}, ['a', 'b'])]"
    )

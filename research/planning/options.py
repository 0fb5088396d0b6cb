"""Samplers, schedulers and budgets as the command line names them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from research.errors import UserError
from research.ledger import settings
from vae.config import nearest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from research.ledger.settings import Budget, Sampler, Scheduler

SAMPLERS: dict[str, Any] = {
    "tpe": settings.Tpe,
    "random": settings.RandomSearch,
    "grid": settings.Grid,
    "quasi-random": settings.QuasiRandom,
    "nsga2": settings.Nsga2,
}
SCHEDULERS: dict[str, Any] = {
    "asha": settings.Asha,
    "hyperband": settings.Hyperband,
    "median": settings.MedianRule,
    "none": settings.NoScheduler,
}


def sampler_of(name: str, options: Sequence[str]) -> Sampler:
    """The sampler called ``name`` with ``NAME=VALUE`` options.

    Raises:
        UserError: there is no such sampler, or it has no such option.

    """
    values = dict(_option(text) for text in options)
    if name not in SAMPLERS:
        from research.search.samplers import build_sampler  # noqa: PLC0415 - Optuna, which other verbs don't need

        chosen = settings.OptunaSampler(name=name, options=values)
        try:
            build_sampler(chosen, 0, 0)
        except UserError:
            raise
        except Exception as error:
            line = " ".join(str(error).split()).partition(". ")[0]
            raise UserError(f"--sampler {name!r} can't be made ({type(error).__name__}: {line})") from error
        return chosen
    made = SAMPLERS[name]
    try:
        sampler: Sampler = made(**values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        option = str(first["loc"][0]) if first["loc"] else name
        known = [field for field in made.__dataclass_fields__ if field != "kind"]
        if option not in known:
            hint = nearest(option, known) if known else f"{name} has no options"
            raise UserError(f"unknown --sampler-option {option!r} of {name}: {hint}") from None
        raise UserError(f"--sampler-option {option} {first['msg'].lower()}, got {first['input']!r}") from None
    return sampler


def scheduler_of(name: str, *, reduction: int, min_population: int | None) -> Scheduler:
    """The early stopping called ``name``, its grace still to be resolved.

    Raises:
        UserError: there is none such, or it can't go with a search.

    """
    if name.lower() in {"pbt", "population-based", "pb2"}:
        raise UserError(
            f"--scheduler {name!r} is refused: population-based training changes a trial's settings while it runs, so it "
            "takes no searcher, and no single config would give the result again; use asha, hyperband, median or none"
        )
    if name not in SCHEDULERS:
        raise UserError(f"--scheduler must be one of {', '.join(SCHEDULERS)}, got {name!r}")
    given = {"reduction": reduction, **({} if min_population is None else {"min_population": min_population})}
    made = SCHEDULERS[name]
    scheduler: Scheduler = made(**{key: value for key, value in given.items() if key in made.__dataclass_fields__})
    return scheduler


def budget_of(**limits: float | None) -> Budget:
    """The budget with these limits.

    Raises:
        UserError: one is not above 0.

    """
    for name, value in limits.items():
        if value is not None and not value > 0:
            raise UserError(f"--{name.replace('_', '-')} must be above 0, got {value:g}")
    return settings.Budget(**limits)  # type: ignore[arg-type] # whole numbers where typer made them so


def named_value(text: str) -> tuple[str, Any] | None:
    """``NAME=VALUE`` taken apart, the value as JSON where it is any, else as text; None for what has not that form."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        return None
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _option(text: str) -> tuple[str, Any]:
    if (found := named_value(text)) is None:
        raise UserError(f"--sampler-option must be NAME=VALUE, e.g. startup_trials=20, got {text!r}")
    return found

"""A sweep from its request to its directory, for the command line and for Python."""

from __future__ import annotations

from typing import TYPE_CHECKING

from research.driver.lifecycle import create
from research.on_ray.choice import engine_at
from research.planning.prepare import prepare
from research.store.mirror import relative

if TYPE_CHECKING:
    from collections.abc import Sequence

    from research.driver.engine import Engine
    from research.planning.prepare import Prepared
    from research.planning.request import SweepRequest


def begin(request: SweepRequest, command: Sequence[str]) -> tuple[Prepared, Engine]:
    """Check a request and create the sweep's directory; return what was prepared, and the engine for its trials.

    ``command`` is recorded: how the sweep was asked for.

    Raises:
        UserError: what is wrong and what to do. Nothing was created then.

    """
    prepared = prepare(request)
    engine = engine_at(request.address)
    engine.check(prepared.settings.resources)
    create(prepared.directory, prepared.settings, list(command), prepared.learned)
    return prepared, engine


def opening_lines(prepared: Prepared) -> list[str]:
    """Return what a person should know as a sweep begins: what it is, how it ranks, and remarks on its data."""
    settings = prepared.settings
    resources = settings.resources
    ranking = f"ranked by {settings.metric.name} ({settings.metric.direction})"
    if settings.objectives:
        names = ", ".join(objective.name for objective in settings.objectives)
        ranking = f"front of {names}, stopped by {settings.metric.name}"
    threads = f"{resources.threads} thread{'s' if resources.threads > 1 else ''} each"
    first = (
        f"sweep {relative(prepared.directory)}: {settings.trials} trials of space {settings.space.name}, {ranking}, "
        f"{resources.concurrent} at a time on {threads}"
    )
    return [first, *(f"note: {line}" for line in prepared.notes)]

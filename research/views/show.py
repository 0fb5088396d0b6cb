"""A sweep at a glance, as text for people and as JSON for programs. Reads the ledger and nothing else."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from research.ledger.budget import limits
from research.ledger.events import STANDARD_ERROR
from research.ledger.pareto import hypervolume, reference_point
from research.models.looks import count_looks
from research.store.mirror import relative
from research.text import number_text, shell, visible
from research.views.doubts import warnings
from vae.data.labels import listed

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import RenderableType

    from research.ledger.log import Ledger
    from research.ledger.settings import Metric
    from research.ledger.trial_view import TrialView

STATES = ("COMPLETE", "PRUNED", "FAIL", "SKIPPED", "RUNNING")
_SHOWN = ("val/elbo", "val/reconstruction", "val/kl", "val/active_units")


def counts(ledger: Ledger) -> dict[str, int]:
    """Return the number of trials in each state."""
    found = ledger.standing.states | Counter[str](RUNNING=len(ledger.standing.running))
    return {state: found.get(state, 0) for state in STATES}


def states_shown(ledger: Ledger) -> dict[str, int]:
    """Return :func:`counts`, without SKIPPED if no trial was skipped: few sweeps have any."""
    return {state: count for state, count in counts(ledger).items() if count or state != "SKIPPED"}


def model_folder(ledger: Ledger, view: TrialView) -> Path:
    """Return the folder of a kept trial's model."""
    return ledger.folder.model(view.number)


def value_of(view: TrialView, metric: Metric) -> float | None:
    """Return the trial's best value of the metric, or None if it has none."""
    best = view.best(metric)
    return None if best is None else view.curve(metric.name)[best.epoch]


def as_json(ledger: Ledger) -> dict[str, Any]:
    """Return everything that ``research show --json`` prints."""
    settings = ledger.settings
    ranked = ledger.ranked()
    kept = [view for view in ranked[: settings.keep] if model_folder(ledger, view).is_dir()]
    ranks = ledger.pareto_ranks()
    return {
        "name": settings.name,
        "directory": str(ledger.directory),
        "space": settings.space.name,
        "metric": settings.metric.name,
        "direction": settings.metric.direction,
        "objectives": [{"name": o.name, "direction": o.direction} for o in settings.objectives],
        "hypervolume": hypervolume_json(ledger),
        "budget": {limit.option: {"limit": limit.limit, "spent": limit.spent} for limit in limits(ledger)},
        "replicates": settings.replicates,
        "measure": settings.measure,
        "label_names": list(settings.label_names),
        "trials_asked": settings.trials,
        "states": counts(ledger),
        "sessions": len(ledger.sessions),
        "looks_at_test": count_looks(ledger.directory),
        "best": [
            {
                "rank": rank,
                "trial": view.number,
                "value": value_of(view, settings.metric),
                "point": None if (point := ledger.point(view)) is None else list(point),
                "epoch": best.epoch,
                "params": dict(view.created.params),
                "model": str(model_folder(ledger, view)),
                "reproduce": shell("research", "reproduce", ledger.directory, "--rank", rank),
            }
            for rank, view in enumerate(kept, start=1)
            if (best := view.best(settings.metric)) is not None
        ],
        "trials": [_trial_json(view, settings.metric, ranks) for _, view in sorted(ledger.trials.items())],
    }


def hypervolume_json(ledger: Ledger) -> dict[str, Any] | None:
    """Return the hypervolume of the front and its reference point, or None if there is no front."""
    objectives = ledger.settings.objectives
    points = [ledger.point(ledger.trials[number]) or () for number in ledger.pareto_ranks()]
    if not points:
        return None
    reference = reference_point(points, objectives)
    return {"value": hypervolume(points, objectives, reference), "reference": list(reference)}


def _trial_json(view: TrialView, metric: Metric, ranks: dict[int, int]) -> dict[str, Any]:
    best = view.best(metric)
    return {
        "trial": view.number,
        "status": view.status,
        "reason": view.reason,
        "fail_kind": view.fail_kind,
        "seed": view.created.seed,
        "params": dict(view.created.params),
        "config": dict(view.created.config),
        "config_hash": view.created.config_hash,
        "source": view.created.source,
        "pareto_rank": ranks.get(view.number),
        "attempts": view.attempt + 1,
        "epochs": max(view.rows, default=0),
        "best_epoch": None if best is None else best.epoch,
        "metrics": None if best is None else dict(best.metrics),
        "rows": [dict(view.rows[epoch].metrics) for epoch in sorted(view.rows)],
    }


def _constraints_line(ledger: Ledger) -> str:
    ranked = ledger.ranked()
    satisfied = sum(ledger.feasible(view) for view in ranked)
    told = " and ".join(str(constraint) for constraint in ledger.settings.constraints)
    return f"subject to {told}: satisfied by {satisfied} of {len(ranked)} trials, which rank first"


def front_line(ledger: Ledger) -> str:
    """Return one line with the front's size, its hypervolume and the reference point."""
    names = " against ".join(objective.name for objective in ledger.settings.objectives)
    found = hypervolume_json(ledger)
    if found is None:
        return f"front    {names}: no trial has completed yet"
    reference = ", ".join(number_text(value) for value in found["reference"])
    return (
        f"front    {names}: {len(ledger.front())} of {len(ledger.pareto_ranks())} completed trials, hypervolume "
        f"{number_text(found['value'])} from the worst of each ({reference}); epochs and pruning by {ledger.settings.metric.name}"
    )


def glance(ledger: Ledger, *, rows: int | None = None) -> RenderableType:
    """Return the states, the best configs, the folders of their models, and the commands that come next."""
    settings = ledger.settings
    states = counts(ledger)
    ended = sum(states.values()) - states["RUNNING"] - states["SKIPPED"]
    parts: list[RenderableType] = [
        Text.assemble(
            ("sweep ", "bold"),
            visible(f"{settings.name}  ({settings.space.name}, {ended} of {settings.trials} trials ended)"),
        ),
        _line(f"measure  {settings.measure}"),
        *([_line(f"labels   {listed(settings.label_names)}")] if settings.label_names else []),
        *([_line(_constraints_line(ledger))] if settings.constraints else []),
        *([_line(front_line(ledger))] if settings.objectives else []),
        *(_line(f"budget   {limit.option}: {limit}") for limit in limits(ledger)),
        _line("states   " + ", ".join(f"{count} {_named(state, ledger)}" for state, count in states.items() if count)),
    ]
    failures = Counter(view.fail_kind for view in ledger.trials.values() if view.status == "FAIL")
    if failures:
        parts.append(_line("failed   " + ", ".join(f"{count} {kind}" for kind, count in failures.items())))
        example = next(view for view in ledger.trials.values() if view.status == "FAIL")
        parts.append(_line(f"         e.g. trial {example.number}: {example.reason}"))
    ranked = ledger.ranked()
    if ranked:
        shown = ranked[: rows or settings.keep]
        parts += [Text(""), best_table(ledger, shown)]
        parts += [Text(line, style="yellow") for line in warnings(ledger, shown)]
        parts += _next_steps(ledger, ranked)
    looks = count_looks(ledger.directory)
    parts.append(_line(f"test split: looked at {looks} time{'' if looks == 1 else 's'}"))
    return Group(*parts)


def _line(text: str) -> Text:
    """Return one line. A line feed inside the text does not begin another line."""
    return Text(visible(text))


def _named(state: str, ledger: Ledger) -> str:
    """Return a state's name. After a stop nothing runs, so RUNNING is called unfinished."""
    verb = continued_by(ledger)
    return state if state != "RUNNING" or verb is None else f"unfinished (research {verb} continues them)"


def continued_by(ledger: Ledger) -> str | None:
    """Return the verb that continues a stopped sweep: extend after a spent budget, else resume; None if it runs."""
    if ledger.interrupted is None:
        return None
    return "extend" if ledger.interrupted.reason.startswith("--") else "resume"


def best_table(ledger: Ledger, views: list[TrialView]) -> Table:
    """Return the best trials with their figures (nats per example, at the best epoch) and parameters."""
    metric = ledger.settings.metric
    table = Table(title=None, box=None, pad_edge=False, header_style="bold")
    table.add_column("rank", justify="right")
    table.add_column("trial", justify="right")
    objectives = [objective.name for objective in ledger.settings.objectives]
    ranks = ledger.pareto_ranks()
    if objectives:
        table.add_column("front", justify="right")
    errors = [metric.name + STANDARD_ERROR] if ledger.settings.replicates > 1 else []
    names = list(dict.fromkeys((metric.name, *errors, *objectives, *_SHOWN)))
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("epoch", justify="right")
    table.add_column("state")
    table.add_column("parameters", overflow="fold")
    for rank, view in enumerate(views, start=1):
        best = view.best(metric)
        assert best is not None, "ranked trials have a finite value"
        cells = [number_text(best.metrics.get(name)) for name in names]
        front = [str(ranks.get(view.number, "-"))] if objectives else []
        table.add_row(str(rank), str(view.number), *front, *cells, str(best.epoch), view.status, parameters(view))
    return table


def parameters(view: TrialView) -> str:
    """Return the sampled parameters as ``name=value``, one after the other."""
    return "  ".join(f"{visible(name)}={number_text(value)}" for name, value in view.created.params.items())


def _next_steps(ledger: Ledger, ranked: list[TrialView]) -> list[RenderableType]:
    kept = [view for view in ranked[: ledger.settings.keep] if model_folder(ledger, view).is_dir()]
    if not kept:
        return []
    place, best = relative(ledger.directory), relative(model_folder(ledger, kept[0]))
    lines = ["", "models kept"]
    lines += [f"  rank {rank}  {relative(model_folder(ledger, view))}" for rank, view in enumerate(kept, start=1)]
    lines += [
        "next",
        f"  {shell('research', 'reproduce', place)} --rank 1        train the best config again and compare",
        f"  {shell('research', 'evaluate', best)} --nll 500   importance-weighted likelihood",
        f"  {shell('research', 'finalists', place)}                 the best configs with fresh seeds: how sure is the answer",
        f"  {shell('research', 'report', place)}                    curves, importances, pictures: one page to open in a browser",
        f"  {shell('research', 'show', place)}                      this page",
        "",
    ]
    return [_line(line) for line in lines]

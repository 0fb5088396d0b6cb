"""Every figure of a report, as JSON. The page is drawn from these figures and shows no others."""

from __future__ import annotations

import dataclasses
import statistics
from collections import defaultdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

from research.experiments import finalists
from research.ledger.budget import wall_seconds
from research.ledger.events import STANDARD_ERROR
from research.ledger.settings import rungs
from research.ledger.trial_view import TIMES
from research.models.looks import count_looks
from research.search.plotted_study import importances
from research.store.mirror import relative
from research.text import json_text, shell
from research.views.doubts import doubts_of
from research.views.show import as_json as shown
from research.views.show import counts, hypervolume_json, model_folder

if TYPE_CHECKING:
    from research.ledger.log import Ledger
    from research.ledger.trial_view import TrialView

UTILISATION = (
    "seconds that rows say were spent training and evaluating, over the number of slots times the seconds from the "
    "first to the last event of each session; starting, saving, waiting and epochs that were lost with a worker are "
    "not work"
)
OCCUPIED = (
    "seconds from each trial's draw to its latest event, within sessions, over the same slot seconds; the rest is Ray "
    "starting and ending, and slots that waited for something to do"
)


def facts(ledger: Ledger) -> dict[str, Any]:
    """Return the facts of a sweep from its ledger, its looks and the files of its kept models."""
    settings = ledger.settings
    states = counts(ledger)
    found, reason = importances(ledger)
    return {
        "name": settings.name,
        "directory": str(ledger.directory),
        "identity": ledger.identity,
        "updated": ledger.updated,
        "space": settings.space.name,
        "space_sha256": settings.space.sha256,
        "data": _data(ledger),
        "measure": settings.measure,
        "metric": _metric(settings.metric),
        "objectives": [_metric(objective) for objective in settings.objectives],
        "constraints": [str(constraint) for constraint in settings.constraints],
        "seed": settings.seed,
        "replicates": settings.replicates,
        "deterministic": settings.deterministic,
        "sampler": to_plain(settings.sampler),
        "scheduler": to_plain(settings.scheduler),
        "budget": {"trials": settings.trials, "epochs": settings.epochs, **to_plain(settings.budget)},
        "resources": to_plain(settings.resources),
        "parent": None if settings.parent is None else to_plain(settings.parent),
        "learned_from": [learned.name for learned in ledger.learned],
        "code": dict((ledger.sessions[-1] if ledger.sessions else ledger.created).code),
        "code_changed": len({str(session.code.get("source_sha256")) for session in ledger.sessions}) > 1,
        "versions": dict((ledger.sessions[-1] if ledger.sessions else ledger.created).versions),
        "hardware": dict(ledger.sessions[-1].hardware) if ledger.sessions else {},
        "sessions": len(ledger.sessions),
        "interrupted": None if ledger.interrupted is None else ledger.interrupted.reason,
        "looks_at_test": count_looks(ledger.directory),
        "states": states,
        "best": [_ranked(ledger, view, rank) for rank, view in enumerate(ledger.ranked(), start=1)],
        "finalists": finalists.results(ledger),
        "front": _front(ledger),
        "importances": {"method": "fANOVA", "of": states["COMPLETE"], "by_objective": found, "none_because": reason},
        "rate_distortion": _rate_distortion(ledger),
        "rungs": _rungs(ledger),
        "failures": _failures(ledger, "FAIL"),
        "skipped": _failures(ledger, "SKIPPED"),
        "time": _time(ledger),
        "trials": [told | {"seconds": ledger.trials[told["trial"]].seconds} for told in shown(ledger)["trials"]],
    }


def to_json(value: dict[str, Any]) -> str:
    """Return the facts as JSON text. Figures have all their digits; a figure that is not finite is null."""
    return json_text(value)


def to_plain(settings: Any) -> dict[str, Any]:  # noqa: ANN401 - any of the settings' parts
    """Return a part of the settings as JSON values."""
    return dataclasses.asdict(settings)


def place(ledger: Ledger) -> str:
    """Return the sweep's directory, quoted for a shell."""
    return shell(relative(ledger.directory))


def epochs_of(ledger: Ledger, view: TrialView) -> int | None:
    """Return the trial's full budget in epochs, or None for a draw that is no config."""
    own = view.created.config.get("epochs")
    return own if isinstance(own, int) else ledger.settings.epochs


def _metric(metric: Any) -> dict[str, str]:  # noqa: ANN401 - settings.Metric
    return {"name": metric.name, "direction": metric.direction}


def _data(ledger: Ledger) -> dict[str, Any]:
    configs = [view.created.config.get("data") for _, view in sorted(ledger.trials.items())]
    first = next((config for config in configs if isinstance(config, dict)), {})
    return {
        "kind": ledger.settings.data or first.get("kind"),
        "data_hash": ledger.settings.data_hash,
        "split_hash": ledger.settings.split_hash,
        "label_names": list(ledger.settings.label_names),
    }


def _ranked(ledger: Ledger, view: TrialView, rank: int) -> dict[str, Any]:
    metric = ledger.settings.metric
    best = view.best(metric)
    assert best is not None, "ranked trials have a finite value"
    folder = model_folder(ledger, view)
    kept = folder.is_dir()
    return {
        "rank": rank,
        "trial": view.number,
        "status": view.status,
        "value": best.metrics[metric.name],
        "standard_error": best.metrics.get(metric.name + STANDARD_ERROR),  # over the replicates, where there are some
        "epoch": best.epoch,
        "feasible": ledger.feasible(view),
        "doubts": doubts_of(ledger, view),
        "params": dict(view.created.params),
        "metrics": {name: value for name, value in best.metrics.items() if not isinstance(value, list)},
        "model": str(folder) if kept else None,
        "pictures": sorted(path.name for path in folder.glob("*.png")) if kept else [],
        "reproduce": shell("research", "reproduce", relative(ledger.directory), "--rank", rank),
        "evaluate": shell("research", "evaluate", relative(folder)) if kept else None,
    }


def _front(ledger: Ledger) -> dict[str, Any] | None:
    """Return the points of COMPLETE, feasible trials with their Pareto ranks, and the front's hypervolume."""
    objectives = ledger.settings.objectives
    if not objectives:
        return None
    ranks = ledger.pareto_ranks()
    points = {number: ledger.point(ledger.trials[number]) or () for number in ranks}
    volume = hypervolume_json(ledger) or {"value": None, "reference": None}
    return {
        "objectives": [_metric(objective) for objective in objectives],
        "points": [
            {"trial": number, "pareto_rank": ranks[number], "values": list(point)} for number, point in points.items()
        ],
        "front": [view.number for view in ledger.front()],
        "reference": volume["reference"],
        "hypervolume": volume["value"],
    }


def _rate_distortion(ledger: Ledger) -> list[dict[str, Any]]:
    """Return rate (KL) and distortion (reconstruction) of each trial's best row, if that row has both."""
    found = []
    for _, view in sorted(ledger.trials.items()):
        best = view.best(ledger.settings.metric)
        if best is None:
            continue
        rate, distortion = best.metrics.get("val/kl"), best.metrics.get("val/reconstruction")
        if isinstance(rate, int | float) and isinstance(distortion, int | float):
            told = {"rate": rate, "distortion": distortion, "elbo": best.metrics.get("val/elbo")}
            found.append({"trial": view.number, "status": view.status, "epoch": best.epoch, **told})
    return found


def _rungs(ledger: Ledger) -> dict[str, Any] | None:
    """Return the numbers of trials that reached each rung and were stopped there, and the epochs that this saved."""
    settings = ledger.settings
    if settings.scheduler.kind == "none":
        return None
    reached, stopped = defaultdict[int, int](int), defaultdict[int, int](int)
    for view in ledger.trials.values():
        epochs = epochs_of(ledger, view)
        if epochs is None:
            continue
        for rung in rungs(settings.scheduler, epochs, view.number):
            reached[rung] += max(view.rows, default=0) >= rung
        if view.status == "PRUNED" and view.final is not None:
            # A rung with too few trials lets a trial pass. The trial is stopped later, by its value at that rung.
            stopped[max(view.final.judged, default=view.final.epoch)] += 1
    judged = [view for view in ledger.trials.values() if view.status in {"COMPLETE", "PRUNED"}]
    trained = sum(max(view.rows) for view in judged)
    full = sum(epochs_of(ledger, view) or max(view.rows) for view in judged)
    return {
        "scheduler": settings.scheduler.kind,
        "rungs": [
            {"epoch": rung, "reached": reached[rung], "stopped": stopped[rung]} for rung in sorted({*reached, *stopped})
        ],
        "trials": len(judged),
        "epochs_trained": trained,
        "epochs_full": full,
        "epochs_saved": full - trained,
    }


def _failures(ledger: Ledger, status: str) -> list[dict[str, Any]]:
    """Return the failures by kind, the most frequent first, each with its first trial as an example."""
    kinds = defaultdict[str, list["TrialView"]](list)
    for _, view in sorted(ledger.trials.items()):
        if view.status == status:
            kinds[view.fail_kind or "unknown"].append(view)
    return [
        {
            "kind": kind,
            "count": len(views),
            "trials": [view.number for view in views],
            "example": {
                "trial": views[0].number,
                "reason": views[0].reason,
                "detail": views[0].failure.detail if views[0].failure is not None else "",
            },
        }
        for kind, views in sorted(kinds.items(), key=lambda item: -len(item[1]))
    ]


def _time(ledger: Ledger) -> dict[str, Any]:
    """Return how the hours were spent; ``utilisation`` is an estimate, and its definition goes with it."""
    spent = [own for view in ledger.trials.values() if (own := view.seconds) is not None]
    by_part = dict.fromkeys(TIMES, 0.0)
    for view in ledger.trials.values():
        for row in view.rows.values():
            for name in TIMES:
                value = row.metrics.get(name)
                by_part[name] += float(value) if isinstance(value, int | float) else 0.0
    wall = wall_seconds(ledger)
    slots = ledger.settings.resources.concurrent
    return {
        "trials": len(spent),
        "trial_seconds": sum(spent),
        "train_seconds": by_part[TIMES[0]],
        "evaluation_seconds": by_part[TIMES[1]],
        "median_trial_seconds": statistics.median(spent) if spent else None,
        "longest_trial_seconds": max(spent, default=None),
        "wall_seconds": wall,
        "slots": slots,
        "utilisation": sum(spent) / (slots * wall) if spent and wall > 0 else None,
        "utilisation_is": UTILISATION,
        "occupied": _occupied(ledger) / (slots * wall) if ledger.trials and wall > 0 else None,
        "occupied_is": OCCUPIED,
    }


def _occupied(ledger: Ledger) -> float:
    """Return the seconds that trials held a slot: from first to latest event, counted only while a session ran."""
    sessions = [(_when(start), _when(end)) for start, end in ledger.spans]
    lives = [(_when(view.started), _when(view.updated)) for view in ledger.trials.values()]
    return sum(
        max(0.0, (min(end, until) - max(start, since)).total_seconds())
        for start, end in sessions
        for since, until in lives
    )


def _when(time: str) -> datetime:
    return datetime.fromisoformat(time)

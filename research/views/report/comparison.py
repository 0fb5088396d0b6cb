"""Several sweeps side by side. They are ranked together only if their figures measure the same thing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from research.ledger import pareto
from research.ledger.comparison import why_not
from research.views.report import charts, optuna_charts
from research.views.report.elements import (
    Block,
    Note,
    Paragraph,
    Table,
    command,
    duration,
    parameters,
    table,
    with_error,
)
from research.views.report.facts import facts
from research.views.report.section import Section

if TYPE_CHECKING:
    from collections.abc import Sequence

    from research.ledger.log import Ledger
    from research.views.report.section import Context


def figures(ledgers: Sequence[Ledger]) -> dict[str, Any]:
    """Return every figure of the report: the facts of one sweep, or the facts of several and their comparison."""
    found = [facts(ledger) for ledger in ledgers]
    return found[0] if len(found) == 1 else {"comparison": compare(ledgers, found), "sweeps": found}


def compare(ledgers: Sequence[Ledger], all_facts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return a line for each sweep, with ranks if measure, metric and objectives are the same for all.

    Otherwise ``refused`` names the difference, with both sides of it. Sweeps of several objectives are ranked by
    hypervolume from one reference point: the worst value of each objective among the points of all sweeps.
    """
    refused = _differences(all_facts) or _incomparable(ledgers)
    labels = _labels(all_facts)
    sweeps = [_line(own, label) for own, label in zip(all_facts, labels, strict=True)]
    reference: tuple[float, ...] | None = None
    objectives = ledgers[0].settings.objectives
    if refused is None and objectives:
        fronts = [[tuple(point["values"]) for point in own["front"]["points"]] for own in all_facts]
        every = [point for points in fronts for point in points]
        if every:
            reference = pareto.reference_point(every, objectives)
            for one, points in zip(sweeps, fronts, strict=True):
                one["hypervolume"] = pareto.hypervolume(points, objectives, reference)
    if refused is None:
        _rank(sweeps, by="hypervolume" if objectives else "value", lower=not objectives and _minimises(all_facts[0]))
    return {
        "comparable": refused is None,
        "refused": refused,
        "reference": None if reference is None else list(reference),
        "sweeps": sweeps,
    }


def _minimises(own: dict[str, Any]) -> bool:
    return bool(own["metric"]["direction"] == "minimize")


def _differences(all_facts: Sequence[dict[str, Any]]) -> str | None:
    first = all_facts[0]
    for name, told in (("measure", str), ("metric", _told), ("objectives", _told)):
        for other in all_facts[1:]:
            if first[name] != other[name]:
                return f"their {name} differs: {told(first[name])} and {told(other[name])}"
    return None


def _incomparable(ledgers: Sequence[Ledger]) -> str | None:
    first = ledgers[0]
    for other in ledgers[1:]:
        reason = why_not(first.settings.compared_by, other.comparison, first.comparison)
        if reason is not None:
            return f"of {other.settings.name} {reason} as in {first.settings.name}"
    return None


def _told(metric: Any) -> str:  # noqa: ANN401 - one metric or several, as JSON
    if isinstance(metric, list):
        return ", ".join(_told(one) for one in metric) or "none"
    return f"{metric['name']} ({metric['direction']})"


def _labels(all_facts: Sequence[dict[str, Any]]) -> list[str]:
    """Return the sweeps' names, or the directory of a sweep whose name another sweep has, too."""
    names = [own["name"] for own in all_facts]
    return [own["directory"] if names.count(own["name"]) > 1 else own["name"] for own in all_facts]


def _line(own: dict[str, Any], label: str) -> dict[str, Any]:
    best = own["best"][0] if own["best"] else None
    finalists = (own["finalists"] or {}).get("configurations") or [None]
    return {
        "label": label,
        "name": own["name"],
        "directory": own["directory"],
        "space": own["space"],
        "measure": own["measure"],
        "metric": own["metric"],
        "objectives": own["objectives"],
        "rank": None,
        "value": None if best is None else best["value"],
        "trial": None if best is None else best["trial"],
        "status": None if best is None else best["status"],
        "params": {} if best is None else best["params"],
        "hypervolume": None,
        "finalist_mean": None if finalists[0] is None else finalists[0]["mean"],
        "finalist_standard_error": None if finalists[0] is None else finalists[0]["standard_error"],
        "ranked_trials": len(own["best"]),
        "replicates": own["replicates"],
        "states": own["states"],
        "epochs": own["budget"]["epochs"],
        "trial_seconds": own["time"]["trial_seconds"],
        "looks_at_test": own["looks_at_test"],
        "commit": own["code"].get("commit"),
    }


def _rank(sweeps: list[dict[str, Any]], *, by: str, lower: bool) -> None:
    """Set the ranks. Equal figures share a rank, and a sweep without a figure has none."""
    values = [one[by] for one in sweeps if one[by] is not None]
    for one in sweeps:
        if one[by] is not None:
            one["rank"] = 1 + sum((value < one[by]) if lower else (value > one[by]) for value in values)


def comparison_sections(contexts: Sequence[Context], compared: dict[str, Any]) -> list[Section]:
    """Return the sections with the table of all sweeps and, if they compare, their charts."""
    sweeps = compared["sweeps"]
    places = " ".join(context.place for context in contexts)
    parts: list[Block] = []
    if compared["refused"] is not None:
        parts.append(
            Note(
                f"Not ranked together: {compared['refused']}. The figures measure different things, so each sweep stands for itself."
            )
        )
    else:
        parts.append(
            Note(
                "How sure: the best of each sweep is a selected score of "
                + ("one seed" if all(one["replicates"] == 1 for one in sweeps) else "few seeds")
                + ", and a sweep of more trials has a better best score by luck alone. If both sweeps have finalists, compare their means."
            )
        )
    parts.append(_table(sweeps, ranked=compared["comparable"]))
    if compared["reference"] is not None:
        names = [objective["name"] for objective in sweeps[0]["objectives"]]
        told = ", ".join(f"{name} {value:.6g}" for name, value in zip(names, compared["reference"], strict=True))
        parts.append(
            Paragraph(
                f"Ranked by hypervolume from one reference point, the worst of each objective among all points: {told}."
            )
        )
    parts.append(command(f"research report {places}", f"research report {places} --json"))
    found = [Section("comparison", "Side by side", parts)]
    if compared["comparable"]:
        found.append(_overlaid(contexts, sweeps))
    return found


def _table(sweeps: list[dict[str, Any]], *, ranked: bool) -> Table:
    front = any(one["hypervolume"] is not None for one in sweeps)
    fresh = any(one["finalist_mean"] is not None for one in sweeps)
    columns = [
        *(["rank"] if ranked else []),
        "sweep",
        "metric",
        *(["hypervolume"] if front else []),
        "best",
        *(["finalists' best, mean ± s.e."] if fresh else []),
        "of trial",
        "state",
        "ranked",
        "complete",
        "stopped early",
        "failed",
        "epochs",
        "trained for",
        "looks at test",
        "space",
        "measure",
        "parameters of the best",
    ]
    rows = [
        [
            *([one["rank"]] if ranked else []),
            one["label"],
            _told(one["metric"]),
            *([one["hypervolume"]] if front else []),
            one["value"],
            *([with_error(one["finalist_mean"], one["finalist_standard_error"])] if fresh else []),
            one["trial"],
            one["status"],
            one["ranked_trials"],
            one["states"]["COMPLETE"],
            one["states"]["PRUNED"],
            one["states"]["FAIL"],
            one["epochs"],
            duration(one["trial_seconds"]),
            one["looks_at_test"],
            one["space"],
            one["measure"],
            parameters(one["params"]),
        ]
        for one in (sorted(sweeps, key=lambda one: one["rank"] or len(sweeps) + 1) if ranked else sweeps)
    ]
    return table(columns, rows, name="comparison")


def _overlaid(contexts: Sequence[Context], sweeps: list[dict[str, Any]]) -> Section:
    ledgers = [context.ledger for context in contexts]
    labels = [one["label"] for one in sweeps]
    if not any(ledger.ranked() for ledger in ledgers):
        return Section("overlaid", "Best curves", [Paragraph("No trial has ended with a figure yet.")])
    first = contexts[0]
    parts: list[Block] = [
        first.chart(charts.best_curves(ledgers, labels)),
        Paragraph(
            f"The best trial of each sweep, {first.metric} by epoch. Sweeps of different budgets end at different epochs."
        ),
    ]
    if not first.facts["objectives"] and all(context.optuna.complete for context in contexts):
        parts += first.drawn(lambda: [("", chart) for chart in optuna_charts.comparison(ledgers, labels)])
        parts.append(
            Paragraph(
                "Above: trials that ran to the full budget in their order, and the best so far; read both lines at the same "
                "number of trials. Below: the share of those trials at or under a value. Trials that were stopped early are in neither."
            )
        )
    return Section("overlaid", "Best curves", parts)

"""The sections on the search: best configs, history, curves, front, rate and distortion."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from research.views.report import charts
from research.views.report.elements import (
    Block,
    Details,
    Note,
    Paragraph,
    Piece,
    Table,
    by_parameter,
    command,
    facts_list,
    figure,
    line,
    table,
)
from research.views.report.finalists_part import finalists_of
from research.views.report.section import Section

if TYPE_CHECKING:
    from research.views.report.section import Context

SHOWN = 10  # of the best; all trials are in the last table
_BESIDE = ("val/elbo", "val/reconstruction", "val/kl", "val/active_units", "val/nll_iwae")


def best(context: Context) -> Section:
    """Return the section on the best configurations and on how certain their order is."""
    found = context.facts["best"]
    parts: list[Block] = []
    if not found:
        parts.append(Paragraph(f"No trial has ended with a finite {context.metric} yet: there is nothing to rank."))
        parts.append(command(f"research show {context.place}"))
        return Section("best", "Best configurations, and how sure", parts)
    if context.facts["constraints"]:
        satisfied = sum(trial["feasible"] for trial in found)
        told = " and ".join(context.facts["constraints"])
        parts.append(
            Paragraph(f"Subject to {told}: satisfied by {satisfied} of {len(found)} trials, which rank first.")
        )
    if context.facts["objectives"]:
        parts.append(
            Paragraph(
                f"With several objectives the Pareto rank counts first, then {context.metric}, by which each trial's row "
                "is chosen. Trials without a Pareto rank were stopped early."
            )
        )
    parts.append(best_table(context.facts, SHOWN))
    parts += _how_sure(context)
    lines = [trial["reproduce"] for trial in found[:3]]
    lines += [f"{trial['evaluate']} --nll 500" for trial in found[:1] if trial["evaluate"]]
    parts.append(command(f"research show {context.place} --json", *lines))
    return Section("best", "Best configurations, and how sure", parts)


def best_table(facts: dict[str, Any], most: int) -> Table:
    """Return the table of the best ``most`` trials, with the figures of each one's best row."""
    found = facts["best"][:most]
    metric = facts["metric"]["name"]
    names = [name for name in (*(o["name"] for o in facts["objectives"]), *_BESIDE) if name != metric]
    names = [name for name in dict.fromkeys(names) if any(trial["metrics"].get(name) is not None for trial in found)]
    errors = any(trial["standard_error"] is not None for trial in found)
    ranks = {point["trial"]: point["pareto_rank"] for point in (facts["front"] or {}).get("points", [])}
    sampled, cells = by_parameter([trial["params"] for trial in found])
    columns = [
        "rank",
        "trial",
        metric,
        *(["± s.e."] if errors else []),
        *names,
        *(["Pareto rank"] if ranks else []),
        *(["satisfies constraints"] if facts["constraints"] else []),
        "epoch",
        "state",
        *sampled,
    ]
    rows = [
        [
            trial["rank"],
            trial["trial"],
            trial["value"],
            *([trial["standard_error"]] if errors else []),
            *(trial["metrics"].get(name) for name in names),
            *([ranks.get(trial["trial"])] if ranks else []),
            *([trial["feasible"]] if facts["constraints"] else []),
            trial["epoch"],
            trial["status"],
            *own,
        ]
        for trial, own in zip(found, cells, strict=True)
    ]
    return table(columns, rows, name="best")


def _how_sure(context: Context) -> list[Block]:
    finalists = context.facts["finalists"]
    if finalists is not None:
        return finalists_of(context, finalists)
    if (parent := context.facts["parent"]) is not None:
        told = (
            f"How sure: these are finalists of {parent['name']}. Each trial is one fresh seed of one of its best configurations; "
            f"the report of {parent['name']} has their means and the difference between the first two."
        )
        return [Note(told)]
    replicates = context.facts["replicates"]
    seeds = "the score of one training seed" if replicates == 1 else f"the mean over {replicates} seeds"
    error = "" if replicates == 1 else " The standard error is over those seeds; it does not include the selection."
    told = (
        f"How sure: each figure is {seeds}, and the best was selected from {len(context.facts['best'])} such figures. The "
        "best of many noisy scores is too good on average (the winner's curse): expect less if you train it again with another "
        f"seed.{error} "
        f"research finalists {context.place} trains the best configurations again with fresh seeds, and gives their means, "
        "their standard errors and the difference of the first two with its interval."
    )
    return [Note(told)]


def history(context: Context) -> Section:
    """Return the section on the history of the search."""
    if not context.optuna.complete:
        parts: list[Block] = [Paragraph("No trial has run to the full budget yet.")]
    else:
        stopped = context.states("PRUNED")
        left_out = (
            f" The {stopped} that were stopped early are not points here; the curves below show them."
            if stopped
            else ""
        )
        infeasible = " Grey: constraints not satisfied." if context.facts["constraints"] else ""
        parts = [
            *context.drawn(context.optuna.history),
            Paragraph(f"Each point is a trial that ran to the full budget, at its best epoch.{left_out}{infeasible}"),
            command(f"research report {context.place} --csv trials.csv"),
        ]
    return Section("history", "Optimisation history", parts)


def curves(context: Context) -> Section:
    """Return the section with the metric of each trial by epoch."""
    if not any(view.curve(context.metric) for view in context.ledger.trials.values()):
        return Section("curves", "Learning curves", [Paragraph(f"No epoch with a finite {context.metric} yet.")])
    chart = charts.curves(context.ledger)
    cut = (
        " The worst first epochs lie outside the first view; double-click to see everything."
        if charts.leaves_out(chart)
        else ""
    )
    parts: list[Block] = [
        context.chart(chart),
        Paragraph(
            "There is one line for each trial. The line of a complete trial is solid and ends in a dot. If the trial was stopped "
            "early, its line is dotted and ends in a circle; if it failed, the line is dashed and ends in a cross; if it is still "
            "running, the line is dash-dotted. The thick line is the best trial. Click a name to hide its lines." + cut
        ),
        command(f"research report {context.place} --csv FOLDER    # rows.csv: every metric of every epoch"),
    ]
    return Section("curves", "Learning curves", parts)


def front(context: Context) -> Section | None:
    """Return the section on the Pareto front and its hypervolume, or None for a sweep with one objective."""
    found = context.facts["front"]
    if found is None:
        return None
    if not found["points"]:
        return Section(
            "front", "Pareto front", [Paragraph("No trial has run to the full budget with all objectives yet.")]
        )
    names = [objective["name"] for objective in found["objectives"]]
    values = {point["trial"]: point["values"] for point in found["points"]}
    sampled, cells = by_parameter([dict(view.created.params) for view in context.ledger.front()])
    rows = [[trial, *values[trial], *own] for trial, own in zip(found["front"], cells, strict=True)]
    directions = ", ".join(f"{objective['name']} ({objective['direction']})" for objective in found["objectives"])
    reference: list[Piece] = []
    for name, value in zip(names, found["reference"], strict=True):
        reference += [", " if reference else "", f"{name} ", figure(value)]
    parts: list[Block] = [
        *context.drawn(lambda: [("", context.optuna.front())]),
        Paragraph(
            f"Objectives: {directions}. Each point is a complete trial at the epoch with its best {context.metric}: one model, "
            "one point. The front holds the trials that no other trial dominates. Trials that were stopped early had a smaller "
            "budget and are left out."
        ),
        table(["trial", *names, *sampled], rows, name="front"),
        facts_list(
            [
                ("hypervolume", line(figure(found["hypervolume"]))),
                ("measured from the reference point", line(*reference)),
            ]
        ),
        *context.drawn(lambda: [("", context.optuna.hypervolume(found["reference"]))]),
        Paragraph(
            "The hypervolume is the volume that the front dominates up to the reference point: here the worst value of each "
            "objective among the points. Its unit is the product of the objectives' units. Do not compare volumes that have "
            "different reference points."
        ),
        command(f"research report {context.place} --json    # front"),
    ]
    return Section("front", "Pareto front", parts)


def rate_distortion(context: Context) -> Section | None:
    """Return the section on rate and distortion, or None if the rows have no bound."""
    points = context.facts["rate_distortion"]
    if not points:
        return None
    rows = [
        [point["trial"], point["status"], point["epoch"], point["distortion"], point["rate"], point["elbo"]]
        for point in points
    ]
    chart = charts.rate_distortion(points)
    parts: list[Block] = [
        context.chart(chart),
        Paragraph(
            "The rate (val/kl) is what the code carries, and the distortion (val/reconstruction) is what decoding loses. Both "
            "are in nats per example, at each trial's best epoch. The ELBO is the same along a dotted line, and better towards the "
            "lower left (Alemi et al. 2018). Two models on one line have equally good bounds, but may have very different codes. "
            "Hollow points had fewer epochs."
            + (" Some lie outside the first view; double-click to see all." if charts.leaves_out(chart) else "")
        ),
        Details(
            "The points",
            table(
                ["trial", "state", "epoch", "val/reconstruction", "val/kl", "val/elbo"], rows, name="rate-distortion"
            ),
        ),
        command(f"research report {context.place} --json    # rate_distortion"),
    ]
    return Section("rate-distortion", "Rate and distortion", parts)

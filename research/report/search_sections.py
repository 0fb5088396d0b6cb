"""What the search found: best configurations, history, curves, parameters, front."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from research.report import charts
from research.report.elements import Raw, by_parameter, command, details, facts_list, figure, note, paragraph, parameters, table
from research.report.section import Section

if TYPE_CHECKING:
    from research.report.section import Context

SHOWN = 10  # of the best; all trials are in the last table
_BESIDE = ("val/elbo", "val/reconstruction", "val/kl", "val/active_units", "val/nll_iwae")
_FEWEST_TO_PLOT = 2
_SELECTED = (
    "Early stopping selected these: a trial that ran to the full budget had to look good at each rung before. What "
    "matters among the good may matter less, or otherwise, among all. For an answer about the whole space, sweep with "
    "--scheduler none."
)


def best(context: Context) -> Section:
    """The best configurations, and how sure one can be of their order."""
    found = context.facts["best"]
    parts = []
    if not found:
        parts.append(paragraph(f"No trial has ended with a finite {context.metric} yet: there is nothing to rank."))
        parts.append(command(f"research show {context.place}"))
        return Section("best", "Best configurations, and how sure", "".join(parts))
    if context.facts["constraints"]:
        satisfied = sum(trial["feasible"] for trial in found)
        told = " and ".join(context.facts["constraints"])
        parts.append(paragraph(f"Subject to {told}: satisfied by {satisfied} of {len(found)} trials, which rank first."))
    if context.facts["objectives"]:
        parts.append(
            paragraph(
                f"With several objectives the Pareto rank counts first, then {context.metric}, by which each trial's row "
                "is chosen. Trials without a Pareto rank were stopped early."
            )
        )
    parts.append(best_table(context.facts, SHOWN))
    parts.append(_how_sure(context))
    lines = [trial["reproduce"] for trial in found[:3]]
    lines += [f"{trial['evaluate']} --nll 500" for trial in found[:1] if trial["evaluate"]]
    parts.append(command(f"research show {context.place} --json", *lines))
    return Section("best", "Best configurations, and how sure", "".join(parts))


def best_table(facts: dict[str, Any], most: int) -> str:
    """Ranked trials with the figures of each one's best row."""
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


def _how_sure(context: Context) -> str:
    finalists = context.facts["finalists"]
    if finalists is not None:
        return _finalists(context, finalists)
    replicates = context.facts["replicates"]
    seeds = "one training seed" if replicates == 1 else f"the mean over {replicates} seeds"
    error = "" if replicates == 1 else " The standard error is over those seeds; that of the selection is not in it."
    return note(
        f"How sure: each figure is of {seeds}, and the best of {len(context.facts['best'])} such figures. The winner of "
        f"many noisy scores was lucky on average (the winner's curse): trained again with another seed, expect less.{error} "
        f"research finalists {context.place} trains the best configurations again with fresh seeds, and gives their means, "
        "their standard errors and the difference of the first two with its interval."
    )


def _finalists(context: Context, found: dict[str, Any]) -> str:
    """Fresh seeds of the best configurations: means, and what the search had promised."""
    metric = found.get("metric", context.metric)
    rows = []
    for one in found["configurations"]:
        mean, error = one["mean"], one["standard_error"]
        told = "–" if mean is None else figure(mean) + ("" if error is None else f" ± {figure(error)}")
        scores = ", ".join(figure(score) for score in one["scores"])
        failed = len(one.get("failed") or [])
        rows.append(
            [one["rank"], one["parent_trial"], Raw(told), Raw(scores), failed, one["search"], one["gap"], parameters(one["params"])]
        )
    columns = ["rank", "trial", f"{metric}, mean ± s.e.", "each seed", "failed", "in the search", "gap", "parameters"]
    parts = [
        "<h3>Finalists: trained again with fresh seeds</h3>",
        paragraph(
            f"The best configurations of the search, each trained with {len(found['seeds'])} fresh seeds and ranked by the "
            "mean. The standard error is over seeds; “in the search” is the score that made it a finalist, and the gap "
            "is how far the fresh mean is from it."
        ),
        "" if found.get("complete", True) else note("Not all seeds have ended: the means will change."),
        table(columns, rows, name="finalists"),
    ]
    pairs: list[tuple[str, object]] = []
    if (difference := found.get("difference")) is not None:
        level = 100 * difference["level"] if difference["level"] <= 1 else difference["level"]
        sure = difference["low"] > 0 or difference["high"] < 0
        verdict = "the interval leaves out 0" if sure else "the interval holds 0: no difference shown"
        pairs.append(
            (
                f"first minus second (trials {difference['first']} and {difference['second']})",
                Raw(
                    f"{figure(difference['mean'])}, {level:g} % interval {figure(difference['low'])} to "
                    f"{figure(difference['high'])}; {verdict}"
                ),
            )
        )
    if (curse := found.get("winners_curse")) is not None:
        error = curse.get("standard_error")
        of = f", of {escape(str(curse['of']))}" if curse.get("of") is not None else ""
        pairs.append(
            (
                "winner's curse: score in the search against fresh seeds",
                Raw(figure(curse["gap"]) + ("" if error is None else f" ± {figure(error)}") + of),
            )
        )
    parts.append(facts_list(pairs) if pairs else "")
    if (test := found.get("test")) is not None:
        rows = [
            [name, one["mean"], one["standard_error"], Raw(", ".join(figure(value) for value in one["values"]))]
            for name, one in test["metrics"].items()
        ]
        parts.append("<h3>The winner on the test split</h3>")
        parts.append(
            note(
                "Test was looked at after the choice was made, and takes no part in it. "
                f"Looks at test on record: {test['looks']}. A figure that was one of many looks is a selected figure."
            )
        )
        parts.append(table(["metric", "mean", "s.e. over seeds", "each seed"], rows, name="test"))
    parts.append(command(f"research finalists {context.place}", f"research report {context.place} --json    # finalists"))
    return "".join(parts)


def history(context: Context) -> Section:
    """How the search came to its best."""
    if not context.optuna.complete:
        html = paragraph("No trial has run to the full budget yet.")
    else:
        stopped = context.states("PRUNED")
        left_out = f" The {stopped} that were stopped early are not points here; the curves below show them." if stopped else ""
        infeasible = " Grey: constraints not satisfied." if context.facts["constraints"] else ""
        html = (
            context.drawn(context.optuna.history)
            + paragraph(f"Each point is a trial that ran to the full budget, at its best epoch.{left_out}{infeasible}")
            + command(f"research report {context.place} --csv trials.csv")
        )
    return Section("history", "Optimisation history", html)


def curves(context: Context) -> Section:
    """The metric by epoch."""
    if not any(view.curve(context.metric) for view in context.ledger.trials.values()):
        return Section("curves", "Learning curves", paragraph(f"No epoch with a finite {context.metric} yet."))
    chart = charts.curves(context.ledger)
    cut = " The worst first epochs lie outside the first view; a double click shows everything." if charts.leaves_out(chart) else ""
    html = (
        context.chart(chart)
        + paragraph(
            "A line for each trial: solid and ending in a dot, complete; dotted and ending in a circle, stopped early; dashed "
            "and ending in a cross, failed; dash-dotted, still running. Thick: the best. A click on a name hides its lines."
            + cut
        )
        + command(f"research report {context.place} --csv FOLDER    # rows.csv: every metric of every epoch")
    )
    return Section("curves", "Learning curves", html)


def parameters_seen(context: Context) -> list[Section]:
    """Parallel coordinates, importances, slices and contours."""
    complete, names = context.optuna.complete, context.optuna.parameters
    found = []
    if len(complete) < _FEWEST_TO_PLOT or not names:
        why = (
            f"{len(complete)} trials ran to the full budget: too few to say anything about parameters."
            if len(complete) < _FEWEST_TO_PLOT
            else "No parameter has more than one value among the trials that ran to the full budget."
        )
        return [Section("parameters", "Parameters", paragraph(why))]
    sampled = {name for view in context.ledger.trials.values() for name in view.created.params}
    partial = sorted(name for name in sampled if any(name not in trial.params for trial in complete))
    told = f" Only some configurations have {', '.join(partial)}." if partial else ""
    if set(names) - set(partial):
        found.append(
            Section(
                "parallel",
                "Parallel coordinates",
                context.drawn(context.optuna.parallel)
                + paragraph(
                    f"A line for each of the {len(complete)} trials that ran to the full budget; drag along an axis to keep those "
                    f"that pass there.{told}{' These are not shown here.' if partial else ''}"
                )
                + command(f"research report {context.place} --csv trials.csv    # params/..."),
            )
        )
    found.append(importances(context))
    slices = (
        context.drawn(context.optuna.slices)
        + paragraph(
            f"Each point is a trial that ran to the full budget; darker is later.{told} The sampler looks where it was good "
            "before, so points crowd there, and a cloud that leans may be another parameter's doing."
        )
        + command(f"research report {context.place} --csv trials.csv    # params/...")
    )
    found.append(Section("slices", "One parameter at a time", slices))
    if len(names) > 1:
        figures = context.facts["importances"]["by_objective"]
        order = list(next(iter(figures.values()), {}))
        found.append(
            Section(
                "contours",
                "Two parameters at a time",
                context.drawn(lambda: context.optuna.contours(order))
                + paragraph(
                    f"The {min(len(names), 4)} parameters that matter most{'' if order else ' (in the order sampled)'}. "
                    "Colours between the points are interpolated: only the points were measured."
                )
                + command(f"research report {context.place} --csv trials.csv    # params/..."),
            )
        )
    return found


def importances(context: Context) -> Section:
    """Which parameters the metric depends on, among the trials that were allowed to finish."""
    told = context.facts["importances"]
    if told["none_because"] is not None:
        html = paragraph(f"None: {told['none_because']}.")
    else:
        rows = [
            [objective, name, value] for objective, found in told["by_objective"].items() for name, value in found.items()
        ]
        html = (
            context.drawn(lambda: [("", context.optuna.importances())])
            + paragraph(
                f"fANOVA (Hutter et al. 2014), as Optuna computes it, of the {told['of']} trials that ran to the full budget and "
                "the parameters that all of them have: each one's share of the variance of the metric. With few trials the order "
                "of the small ones is chance."
            )
            + (note(_SELECTED) if context.facts["scheduler"]["kind"] != "none" else "")
            + table(["objective", "parameter", "importance"], rows, name="importances")
            + command(f"research report {context.place} --json    # importances")
        )
    return Section("importances", "Which parameters matter", html)


def front(context: Context) -> Section | None:
    """The Pareto front and its hypervolume; None for a sweep of one objective."""
    found = context.facts["front"]
    if found is None:
        return None
    if not found["points"]:
        return Section("front", "Pareto front", paragraph("No trial has run to the full budget with all objectives yet."))
    names = [objective["name"] for objective in found["objectives"]]
    values = {point["trial"]: point["values"] for point in found["points"]}
    sampled, cells = by_parameter([dict(view.created.params) for view in context.ledger.front()])
    rows = [[trial, *values[trial], *own] for trial, own in zip(found["front"], cells, strict=True)]
    directions = ", ".join(f"{objective['name']} ({objective['direction']})" for objective in found["objectives"])
    reference = ", ".join(f"{name} {figure(value)}" for name, value in zip(names, found["reference"], strict=True))
    html = (
        context.drawn(lambda: [("", context.optuna.front())])
        + paragraph(
            f"Objectives: {directions}. Each point is a complete trial at the epoch with its best {context.metric}: one model, "
            "one point. On the front are those that no other beats in every objective. Trials that were stopped early have "
            "another budget and are left out."
        )
        + table(["trial", *names, *sampled], rows, name="front")
        + facts_list(
            [("hypervolume", Raw(figure(found["hypervolume"]))), ("measured from the reference point", Raw(reference))]
        )
        + context.drawn(lambda: [("", context.optuna.hypervolume(found["reference"]))])
        + paragraph(
            "The hypervolume is what the front dominates up to the reference point, here the worst value of each objective "
            "among the points; in the product of the objectives' units. Volumes from different reference points don't compare."
        )
        + command(f"research report {context.place} --json    # front")
    )
    return Section("front", "Pareto front", html)


def rate_distortion(context: Context) -> Section | None:
    """Rate against distortion; None where rows hold no bound."""
    points = context.facts["rate_distortion"]
    if not points:
        return None
    rows = [
        [point["trial"], point["status"], point["epoch"], point["distortion"], point["rate"], point["elbo"]] for point in points
    ]
    html = (
        context.chart(charts.rate_distortion(points))
        + paragraph(
            "What the code carries (val/kl, the rate) against what is lost in decoding (val/reconstruction, the distortion), in "
            "nats per example, at each trial's best epoch. Along a dotted line the ELBO is the same; towards the lower left it is "
            "better (Alemi et al. 2018). Two models on one line are equally good bounds and may be very different codes. Hollow "
            "points had fewer epochs."
        )
        + details(
            "The points",
            table(["trial", "state", "epoch", "val/reconstruction", "val/kl", "val/elbo"], rows, name="rate-distortion"),
        )
        + command(f"research report {context.place} --json    # rate_distortion")
    )
    return Section("rate-distortion", "Rate and distortion", html)

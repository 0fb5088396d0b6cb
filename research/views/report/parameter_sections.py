"""The sections on parameters: parallel coordinates, importances, one and two parameters at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from research.views.report.elements import Block, Note, Paragraph, command, counted, table
from research.views.report.optuna_charts import MOST_PARAMETERS
from research.views.report.section import Section

if TYPE_CHECKING:
    from research.views.report.section import Context

_FEWEST_TO_PLOT = 2
_SELECTED = (
    "Early stopping selected these: a trial that ran to the full budget had to be good at each rung before. A parameter that "
    "matters among good trials may matter less, or in another way, among all trials. For an answer about the whole space, "
    "run a sweep with --scheduler none."
)


def parameters_seen(context: Context) -> list[Section]:
    """Return the sections with parallel coordinates, importances, slices and contours."""
    complete, names = context.optuna.complete, context.optuna.parameters
    found = []
    if len(complete) < _FEWEST_TO_PLOT or not names:
        why = (
            f"{counted(len(complete), 'trial')} ran to the full budget: too few to say anything about parameters."
            if len(complete) < _FEWEST_TO_PLOT
            else "No parameter has more than one value among the trials that ran to the full budget."
        )
        return [Section("parameters", "Parameters", [Paragraph(why)])]
    sampled = {name for view in context.ledger.trials.values() for name in view.created.params}
    partial = sorted(name for name in sampled if any(name not in trial.params for trial in complete))
    told = f" Only some configurations have {', '.join(partial)}." if partial else ""
    if set(names) - set(partial):
        found.append(
            Section(
                "parallel",
                "Parallel coordinates",
                [
                    *context.drawn(context.optuna.parallel),
                    Paragraph(
                        f"There is one line for each of the {len(complete)} trials that ran to the full budget. Drag along an axis to keep the "
                        f"lines that cross it there.{told}{' These are not shown here.' if partial else ''}"
                    ),
                    command(f"research report {context.place} --csv trials.csv    # params/..."),
                ],
            )
        )
    found.append(importances(context))
    slices = [
        *context.drawn(context.optuna.slices),
        Paragraph(
            f"Each point is a trial that ran to the full budget; later ones are darker.{told} The sampler prefers values that "
            "were good before, so points crowd there. A trend may be the effect of another parameter."
        ),
        command(f"research report {context.place} --csv trials.csv    # params/..."),
    ]
    found.append(Section("slices", "One parameter at a time", slices))
    if len(names) > 1:
        figures = context.facts["importances"]["by_objective"]
        order = list(next(iter(figures.values()), {}))
        found.append(
            Section(
                "contours",
                "Two parameters at a time",
                [
                    *context.drawn(lambda: context.optuna.contours(order)),
                    Paragraph(
                        f"The {min(len(names), MOST_PARAMETERS)} parameters that matter most{'' if order else ' (in the order sampled)'}. "
                        "Only the points were measured; the colours between them are interpolated."
                    ),
                    command(f"research report {context.place} --csv trials.csv    # params/..."),
                ],
            )
        )
    return found


def importances(context: Context) -> Section:
    """Return the section on how much each parameter matters among the trials that ran to the full budget."""
    told = context.facts["importances"]
    if told["none_because"] is not None:
        parts: list[Block] = [Paragraph(f"None: {told['none_because']}.")]
    else:
        rows = [
            [objective, name, value]
            for objective, found in told["by_objective"].items()
            for name, value in found.items()
        ]
        parts = [
            *context.drawn(lambda: [("", context.optuna.importances())]),
            Paragraph(
                f"fANOVA (Hutter et al. 2014), as Optuna computes it, of the {told['of']} trials that ran to the full budget and "
                "the parameters that all of them have: each one's share of the variance of the metric. With few trials the order "
                "of the small ones is chance."
            ),
            *([Note(_SELECTED)] if context.facts["scheduler"]["kind"] != "none" else []),
            table(["objective", "parameter", "importance"], rows, name="importances"),
            command(f"research report {context.place} --json    # importances"),
        ]
    return Section("importances", "Which parameters matter", parts)

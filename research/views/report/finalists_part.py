"""The search's best configs with fresh seeds: means, their errors, and the winner on test."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from research.views.report.elements import Raw, command, escape, facts_list, figure, note, paragraph, parameters, table

if TYPE_CHECKING:
    from research.views.report.section import Context


def finalists_of(context: Context, found: dict[str, Any]) -> str:
    """Fresh seeds of the best configurations: means, and what the search had promised."""
    metric = found.get("metric", context.metric)
    rows = []
    for one in found["configurations"]:
        mean, error = one["mean"], one["standard_error"]
        told = "–" if mean is None else figure(mean) + ("" if error is None else f" ± {figure(error)}")
        scores = ", ".join(figure(score) for score in one["scores"])
        failed = len(one.get("failed") or [])
        rows.append(
            [
                one["rank"],
                one["parent_trial"],
                Raw(told),
                Raw(scores),
                failed,
                one["search"],
                one["gap"],
                parameters(one["params"]),
            ]
        )
    columns = ["rank", "trial", f"{metric}, mean ± s.e.", "each seed", "failed", "in the search", "gap", "parameters"]
    parts = [
        "<h3>Finalists: trained again with fresh seeds</h3>",
        paragraph(
            f"The best configurations of the search, each trained with {found['seeds']} fresh seeds and ranked by the "
            "mean. The standard error is over seeds; “in the search” is the score that made it a finalist, and the gap "
            "is by how much that score is better than the fresh seeds' score by the same definition: the winner's curse, "
            "where it is above 0."
        ),
        "" if found.get("complete", True) else note("Not all seeds have ended: the means will change."),
        table(columns, rows, name="finalists"),
    ]
    pairs: list[tuple[str, object]] = []
    if (difference := found.get("difference")) is not None:
        level = 100 * difference["level"]
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
    parts.append(
        command(f"research finalists {context.place}", f"research report {context.place} --json    # finalists")
    )
    return "".join(parts)

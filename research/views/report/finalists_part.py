"""The finalists: the best configs trained with fresh seeds, their means and errors, and the winner on test."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from research.views.report.elements import (
    Block,
    Heading,
    Line,
    Note,
    Paragraph,
    command,
    facts_list,
    figure,
    figures,
    line,
    parameters,
    table,
    with_error,
)

if TYPE_CHECKING:
    from research.views.report.section import Context


def finalists_of(context: Context, found: dict[str, Any]) -> list[Block]:
    """Return the part on the finalists: their means, next to the scores that they had in the search."""
    metric = found.get("metric", context.metric)
    rows = []
    for one in found["configurations"]:
        failed = len(one.get("failed") or [])
        rows.append(
            [
                one["rank"],
                one["parent_trial"],
                with_error(one["mean"], one["standard_error"]),
                figures(one["scores"]),
                failed,
                one["search"],
                one["gap"],
                parameters(one["params"]),
            ]
        )
    columns = ["rank", "trial", f"{metric}, mean ± s.e.", "each seed", "failed", "in the search", "gap", "parameters"]
    parts: list[Block] = [
        Heading("Finalists: trained again with fresh seeds"),
        Paragraph(
            f"The best configurations of the search, each trained with {found['seeds']} fresh seeds and ranked by the "
            "mean. The standard error is over seeds; “in the search” is the score that made it a finalist, and the gap "
            "is by how much that score is better than the fresh seeds' score by the same definition: the winner's curse, "
            "where it is above 0."
        ),
        *([] if found.get("complete", True) else [Note("Not all seeds have ended: the means will change.")]),
        table(columns, rows, name="finalists"),
    ]
    pairs: list[tuple[str, str | Line]] = []
    if (difference := found.get("difference")) is not None:
        level = 100 * difference["level"]
        sure = difference["low"] > 0 or difference["high"] < 0
        verdict = "the interval leaves out 0" if sure else "the interval holds 0: no difference shown"
        pairs.append(
            (
                f"first minus second (trials {difference['first']} and {difference['second']})",
                line(
                    figure(difference["mean"]),
                    f", {level:g} % interval ",
                    figure(difference["low"]),
                    " to ",
                    figure(difference["high"]),
                    f"; {verdict}",
                ),
            )
        )
    if (curse := found.get("winners_curse")) is not None:
        told = with_error(curse["gap"], curse.get("standard_error")).pieces
        of = [f", of {curse['of']}"] if curse.get("of") is not None else []
        pairs.append(("winner's curse: score in the search against fresh seeds", line(*told, *of)))
    if pairs:
        parts.append(facts_list(pairs))
    if (test := found.get("test")) is not None:
        rows = [
            [name, one["mean"], one["standard_error"], figures(one["values"])] for name, one in test["metrics"].items()
        ]
        parts.append(Heading("The winner on the test split"))
        parts.append(
            Note(
                "Test was looked at after the choice was made, and takes no part in it. "
                f"Looks at test on record: {test['looks']}. A figure that was one of many looks is a selected figure."
            )
        )
        parts.append(table(["metric", "mean", "s.e. over seeds", "each seed"], rows, name="test"))
    parts.append(
        command(f"research finalists {context.place}", f"research report {context.place} --json    # finalists")
    )
    return parts

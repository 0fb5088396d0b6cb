"""The page: one HTML file that opens from disk, with plotly.js, styles and pictures inside and nothing outside."""

from __future__ import annotations

import secrets
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count
from typing import TYPE_CHECKING, Any

from plotly.offline import get_plotlyjs

from research.views.report import run_sections, search_sections
from research.views.report.comparison import comparison_sections, figures
from research.views.report.elements import command
from research.views.report.parameter_sections import parameters_seen
from research.views.report.pictures_section import pictures
from research.views.report.section import Context, Group, Section
from research.views.report.templates import render

if TYPE_CHECKING:
    from collections.abc import Sequence

    from research.ledger.log import Ledger


def html(ledgers: Sequence[Ledger]) -> str:
    """Return the page about one sweep, or about several sweeps side by side."""
    found = figures(ledgers)
    return (
        page(ledgers[0], found) if len(ledgers) == 1 else comparison_page(ledgers, found["sweeps"], found["comparison"])
    )


def page(ledger: Ledger, facts: dict[str, Any]) -> str:
    """Return the page about one sweep. ``facts`` are those of ``research.views.report.facts``."""
    sections = _sections(Context(ledger, facts))
    states = facts["states"]
    told = f"{facts['space']}, {states['COMPLETE']} trials complete, {states['PRUNED']} stopped early"
    told += "".join(
        f", {states[name]} {word}" for name, word in (("FAIL", "failed"), ("RUNNING", "running")) if states[name]
    )
    return _document(f"Sweep {facts['name']}", f"{told}. {facts['measure']}", [Group("", sections)])


def comparison_page(ledgers: Sequence[Ledger], all_facts: Sequence[dict[str, Any]], compared: dict[str, Any]) -> str:
    """Return the page about several sweeps. They are ranked together only if ``compared`` says that they compare."""
    numbers = count(1)
    contexts = [Context(ledger, facts, numbers) for ledger, facts in zip(ledgers, all_facts, strict=True)]
    groups = [Group("", comparison_sections(contexts, compared))]
    for index, (context, one) in enumerate(zip(contexts, compared["sweeps"], strict=True)):
        brief = [run_sections.header(context), search_sections.best(context), search_sections.curves(context)]
        whole = command(f"research report {context.place}    # every section of this sweep")
        brief[-1] = replace(brief[-1], blocks=[*brief[-1].blocks, whole])
        groups.append(Group(one["label"], [replace(part, anchor=f"{part.anchor}-{index + 1}") for part in brief]))
    labels = ", ".join(one["label"] for one in compared["sweeps"])
    return _document(f"Sweeps {labels}", f"{len(ledgers)} sweeps side by side", groups)


def _sections(context: Context) -> list[Section]:
    found = [
        run_sections.header(context),
        search_sections.best(context),
        search_sections.front(context),
        search_sections.history(context),
        search_sections.curves(context),
        search_sections.rate_distortion(context),
        *parameters_seen(context),
        pictures(context),
        run_sections.rungs(context),
        run_sections.failures(context),
        run_sections.time(context),
        run_sections.every_trial(context),
    ]
    return [section for section in found if section is not None]


def _document(title: str, subtitle: str, groups: Sequence[Group]) -> str:
    return render(
        "page.html",
        title=title,
        subtitle=subtitle,
        groups=groups,
        drawn=datetime.now(UTC).isoformat(timespec="seconds"),
        plotly=get_plotlyjs(),
        # The page runs only the scripts that carry this token. Nobody who wrote a text of the page can know it.
        nonce=secrets.token_urlsafe(16),
    )

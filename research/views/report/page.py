"""The page: one HTML file that opens from disk, with plotly.js, styles and pictures inside and nothing outside."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import count
from typing import TYPE_CHECKING, Any

from plotly.offline import get_plotlyjs

from research.views.report import run_sections, search_sections
from research.views.report.charts import NONCE
from research.views.report.comparison import comparison_sections, figures
from research.views.report.elements import command, escape
from research.views.report.parameter_sections import parameters_seen
from research.views.report.pictures_section import pictures
from research.views.report.section import Context, Section
from research.views.report.style import SCRIPT, STYLE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from research.ledger.log import Ledger


# Nothing is loaded, nothing is sent, and only our own scripts run. Pictures are inside the page, and plotly.js sets
# styles and offers a chart as a file (blob:).
_POLICY = (
    f"default-src 'none'; script-src 'nonce-{NONCE}'; style-src 'unsafe-inline'; img-src data: blob:; "
    "base-uri 'none'; form-action 'none'"
)


def html(ledgers: Sequence[Ledger]) -> str:
    """The page about one sweep, or about several side by side."""
    found = figures(ledgers)
    return (
        page(ledgers[0], found) if len(ledgers) == 1 else comparison_page(ledgers, found["sweeps"], found["comparison"])
    )


def page(ledger: Ledger, facts: dict[str, Any]) -> str:
    """The report of one sweep. ``facts`` are those of ``research.views.report.facts``."""
    sections = _sections(Context(ledger, facts))
    states = facts["states"]
    told = f"{facts['space']}, {states['COMPLETE']} trials complete, {states['PRUNED']} stopped early"
    told += "".join(
        f", {states[name]} {word}" for name, word in (("FAIL", "failed"), ("RUNNING", "running")) if states[name]
    )
    return _document(f"Sweep {facts['name']}", f"{told}. {facts['measure']}", [("", sections)])


def comparison_page(ledgers: Sequence[Ledger], all_facts: Sequence[dict[str, Any]], compared: dict[str, Any]) -> str:
    """Several sweeps side by side; ranked together only where ``compared`` says that they may be."""
    numbers = count(1)
    contexts = [Context(ledger, facts, numbers) for ledger, facts in zip(ledgers, all_facts, strict=True)]
    groups = [("", comparison_sections(contexts, compared))]
    for index, (context, one) in enumerate(zip(contexts, compared["sweeps"], strict=True)):
        brief = [run_sections.header(context), search_sections.best(context), search_sections.curves(context)]
        whole = command(f"research report {context.place}    # every section of this sweep")
        brief[-1] = Section(brief[-1].anchor, brief[-1].title, brief[-1].html + whole)
        title = one["label"]
        named = [Section(f"{part.anchor}-{index + 1}", f"{part.title}: {title}", part.html) for part in brief]
        groups.append((title, named))
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


def _document(title: str, subtitle: str, groups: Sequence[tuple[str, Sequence[Section]]]) -> str:
    contents = "".join(
        (f'<li class="sweep">{escape(name)}</li>' if name else "")
        + "".join(
            f'<li><a href="#{part.anchor}">{escape(part.title.removesuffix(f": {name}"))}</a></li>' for part in sections
        )
        for name, sections in groups
    )
    body = "\n".join(
        f'<section id="{part.anchor}"><h2>{escape(part.title)}</h2>\n{part.html}\n</section>'
        for _, sections in groups
        for part in sections
    )
    drawn = datetime.now(UTC).isoformat(timespec="seconds")
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{escape(title)}</title>
<style>{STYLE}</style>
<script nonce="{NONCE}">{get_plotlyjs()}</script>
</head>
<body><div class="layout">
<header><h1>{escape(title)}</h1><p>{escape(subtitle)}</p></header>
<div class="columns">
<nav><strong>Contents</strong><ul>{contents}</ul></nav>
<main>
{body}
</main>
</div>
<footer><p>Drawn {drawn} from the ledger and nothing else. Figures are in nats per example where nothing else is said, and
rounded for reading: the pointer shows all digits. This page loads nothing from anywhere.</p></footer>
</div>
<script nonce="{NONCE}">{SCRIPT}</script>
</body>
</html>
"""

"""Pieces of the page: tables whose cells keep every digit, pictures without files, commands."""

from __future__ import annotations

import base64
import html
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from research.text import number_text, visible
from vae.durable import PICTURE, read_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

_LONG = 32  # characters from which a cell's text is broken into lines


@dataclass(frozen=True)
class Raw:
    """HTML that is put into a cell as it is."""

    html: str


def escape(text: str) -> str:
    """Return text as HTML that reads as that text; control characters are written out."""
    return html.escape(visible(text, lines=True))


def exact(value: object) -> str:
    """A value with all its digits, as ``research show --json`` has it."""
    return repr(value) if isinstance(value, float) else str(value)


def cell(value: object, *, among_figures: bool = False) -> str:
    """A table cell: a figure reads rounded, and has all its digits in ``data-value`` and as a tooltip."""
    if isinstance(value, Raw):
        return f"<td>{value.html}</td>"
    if isinstance(value, bool) or value is None:
        place = " class=number" if among_figures else ""
        return f"<td{place}>{'–' if value is None else 'yes' if value else 'no'}</td>"
    if isinstance(value, int | float):
        return f'<td class="number">{figure(value)}</td>'
    text = str(value)
    return f"<td{' class=text' if len(text) > _LONG else ''}>{escape(text)}</td>"


def data(value: float, shown: str, unit: str = "") -> str:
    """``shown`` in a value's place, which has all its digits in the page and under the pointer, there with its unit."""
    return f'<data value="{exact(value)}" data-value="{exact(value)}" title="{exact(value)}{unit}">{shown}</data>'


def figure(value: float) -> str:
    """A rounded figure that keeps its digits; at most those that a table has room for are read."""
    if not math.isfinite(value):
        return escape(str(value))
    return data(value, number_text(value))


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, name: str = "") -> str:
    """A table in a box of its own that scrolls where the screen is narrower than it."""
    rows = list(rows)
    figures = {i for row in rows for i, value in enumerate(row) if isinstance(value, int | float)}
    head = "".join(
        f"<th{' class=number' if i in figures else ''}>{_broken(column)}</th>" for i, column in enumerate(columns)
    )
    body = "".join(
        f"<tr>{''.join(cell(value, among_figures=i in figures) for i, value in enumerate(row))}</tr>\n" for row in rows
    )
    attribute = f' data-table="{escape(name)}"' if name else ""
    return (
        f'<div class="scroll" tabindex="0"><table{attribute}><thead><tr>{head}</tr></thead>'
        f"<tbody>\n{body}</tbody></table></div>"
    )


def _broken(name: str) -> str:
    """A column's name, which may go on in the next line: names are longer than the figures below them."""
    return escape(name).replace("/", "/<wbr>").replace("_", "_<wbr>")


def by_parameter(all_params: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[object]]]:
    """A column for each parameter that any of the configurations has, and the cells of each."""
    names = list(dict.fromkeys(name for params in all_params for name in params))
    return names, [[params.get(name) for name in names] for params in all_params]


def duration(seconds: float) -> Raw:
    """A time in the unit that reads best; its seconds have all their digits."""
    unit, name = (1.0, "s") if seconds < 120 else (60.0, "min") if seconds < 7200 else (3600.0, "h")  # noqa: PLR2004
    return Raw(data(seconds, f"{seconds / unit:.3g} {name}", " s"))


def facts_list(pairs: Iterable[tuple[str, object]]) -> str:
    """Names and values, one below the other; values that are ``Raw`` may hold markup."""
    items = "".join(
        f"<dt>{escape(name)}</dt><dd>{value.html if isinstance(value, Raw) else escape(str(value))}</dd>"
        for name, value in pairs
    )
    return f"<dl>{items}</dl>"


def counted(number: int, thing: str) -> str:
    """``1 trial``, ``2 trials``."""
    return f"{number} {thing}{'' if number == 1 else 's'}"


def paragraph(text: str) -> str:
    """Plain text as a paragraph."""
    return f"<p>{escape(text)}</p>"


def note(text: str) -> str:
    """Return a note that a reader needs before believing the figures beside it."""
    return f'<p class="note">{escape(text)}</p>'


def command(*lines: str) -> str:
    """The commands that give the figures above."""
    told = "\n".join(escape(line) for line in lines)
    return f'<div class="command"><pre>{told}</pre></div>'


def parameters(params: dict[str, Any]) -> Raw:
    """Return the sampled parameters, each value with all its digits."""
    told = [
        f"{escape(name)}={figure(value) if isinstance(value, int | float) and not isinstance(value, bool) else escape(str(value))}"
        for name, value in params.items()
    ]
    return Raw('<span class="parameters">' + "&ensp; ".join(told) + "</span>")


_PNG = b"\x89PNG\r\n\x1a\n"


def picture(path: Path, label: str) -> str:
    """A PNG inside the page itself; a sentence where the file can't be read."""
    try:
        content = b"" if path.is_symlink() else read_file(path, PICTURE)
    except OSError as error:
        return paragraph(f"{path.name} can't be read ({error.strerror})")
    if not content.startswith(_PNG):  # a link to some other file of the reader's, who is to send this page to others
        return paragraph(f"{path.name} is no picture")
    encoded = base64.b64encode(content).decode()
    return f'<img alt="{escape(label)}" title="{escape(label)}" src="data:image/png;base64,{encoded}">'


def details(summary: str, inside: str) -> str:
    """Return content that is folded away until it is opened."""
    return f"<details><summary>{escape(summary)}</summary>{inside}</details>"

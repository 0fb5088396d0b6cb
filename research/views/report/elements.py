"""The content of the page as typed blocks. The templates of this package turn the blocks into HTML.

Nothing here holds markup: every text is plain, and the templates escape it.
"""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, TypeAlias

from research.text import number_text
from vae.durable import PICTURE, read_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

_LONG = 32  # a cell's text breaks into lines from this number of characters on
_MINUTES_FROM, _HOURS_FROM = 120.0, 7200.0  # seconds
_PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Figure:
    """A rounded number. ``exact`` has all its digits; the page shows them, with the unit, under the pointer."""

    shown: str
    exact: str
    unit: str = ""


Piece: TypeAlias = str | Figure


@dataclass(frozen=True)
class Line:
    """Text and figures in one line. ``style`` is a class of the style sheet."""

    pieces: tuple[Piece, ...]
    style: str = ""


@dataclass(frozen=True)
class Cell:
    """A table cell. ``style`` is a class of the style sheet: ``number``, ``text`` or none."""

    line: Line
    style: str = ""


@dataclass(frozen=True)
class Heading:
    """A heading inside a section."""

    kind: ClassVar[str] = "heading"
    text: str


@dataclass(frozen=True)
class Paragraph:
    """A paragraph of plain text."""

    kind: ClassVar[str] = "paragraph"
    text: str


@dataclass(frozen=True)
class Note:
    """A note that a reader needs before believing the figures beside it."""

    kind: ClassVar[str] = "note"
    text: str


@dataclass(frozen=True)
class Command:
    """The commands that give the figures above, one in a line."""

    kind: ClassVar[str] = "command"
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """A table in a box of its own, which scrolls if the screen is narrower. ``figures`` are the columns of numbers."""

    kind: ClassVar[str] = "table"
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    figures: frozenset[int]
    name: str


@dataclass(frozen=True)
class Facts:
    """Names and values, one pair below the other."""

    kind: ClassVar[str] = "facts"
    pairs: Sequence[tuple[str, Line]]


@dataclass(frozen=True)
class Source:
    """Text whose spaces and line feeds are kept, such as a traceback."""

    kind: ClassVar[str] = "source"
    text: str


@dataclass(frozen=True)
class Details:
    """Content that is folded away until a reader opens it."""

    kind: ClassVar[str] = "details"
    summary: str
    inside: Block


@dataclass(frozen=True)
class Plot:
    """A plotly chart: the ``id`` of its element, its size in pixels, and plotly's arguments as JSON.

    The JSON stands inside a script, so it must not hold ``<``.
    """

    kind: ClassVar[str] = "plot"
    name: str
    height: int
    width: int
    data: str
    layout: str
    config: str


@dataclass(frozen=True)
class Picture:
    """A PNG inside the page itself, or the ``problem`` with its file; and the caption below it."""

    label: str
    content: str  # base64
    problem: str
    caption: Line


@dataclass(frozen=True)
class Pictures:
    """Pictures side by side."""

    kind: ClassVar[str] = "pictures"
    shown: Sequence[Picture]


Block: TypeAlias = Heading | Paragraph | Note | Command | Table | Facts | Source | Details | Plot | Pictures


def exact(value: float) -> str:
    """Return a number with all its digits, as ``research show --json`` prints it."""
    return repr(value)


def figure(value: float) -> Piece:
    """Return a number rounded for reading, with all its digits beside it."""
    return Figure(number_text(value), exact(value)) if math.isfinite(value) else str(value)


def line(*pieces: Piece, style: str = "") -> Line:
    """Return a line of these pieces."""
    return Line(pieces, style)


def figures(values: Iterable[float]) -> Line:
    """Return the numbers in one line, with commas between them."""
    pieces: list[Piece] = []
    for value in values:
        pieces += [", ", figure(value)]
    return Line(tuple(pieces[1:]))


def with_error(value: float | None, error: float | None) -> Line:
    """Return a value and its standard error, where it has one; a dash for no value."""
    if value is None:
        return line("–")
    return line(figure(value)) if error is None else line(figure(value), " ± ", figure(error))


def duration(seconds: float) -> Line:
    """Return a time in the unit that reads best; its exact value is in seconds."""
    unit, name = (1.0, "s") if seconds < _MINUTES_FROM else (60.0, "min") if seconds < _HOURS_FROM else (3600.0, "h")
    return line(Figure(f"{seconds / unit:.3g} {name}", exact(seconds), " s"))


def share(value: float) -> Line:
    """Return a fraction as a percentage."""
    return line(Figure(f"{100 * value:.0f} %", exact(value)))


def parameters(params: Mapping[str, object]) -> Line:
    """Return the sampled parameters, each value with all its digits."""
    pieces: list[Piece] = []
    for name, value in params.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        pieces += ["\u2002 ", f"{name}=", figure(value) if number else str(value)]  # type: ignore[arg-type]
    return Line(tuple(pieces[1:]), "parameters")


def _cell(value: object, *, among_figures: bool) -> Cell:
    if isinstance(value, Line):
        return Cell(value)
    if isinstance(value, bool) or value is None:
        return Cell(line("–" if value is None else "yes" if value else "no"), "number" if among_figures else "")
    if isinstance(value, int | float):
        return Cell(line(figure(value)), "number")
    text = str(value)
    return Cell(line(text), "text" if len(text) > _LONG else "")


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, name: str = "") -> Table:
    """Return a table. Each value is a number, a text, a truth value, None or a :class:`Line`."""
    rows = list(rows)
    numbers = frozenset(i for row in rows for i, value in enumerate(row) if isinstance(value, int | float))
    cells = [[_cell(value, among_figures=i in numbers) for i, value in enumerate(row)] for row in rows]
    return Table(columns, cells, numbers, name)


def by_parameter(all_params: Sequence[Mapping[str, object]]) -> tuple[list[str], list[list[object]]]:
    """Return a column name for each parameter that any of the configurations has, and the cells of each configuration."""
    names = list(dict.fromkeys(name for params in all_params for name in params))
    return names, [[params.get(name) for name in names] for params in all_params]


def facts_list(pairs: Iterable[tuple[str, str | Line]]) -> Facts:
    """Return names and values, one pair below the other."""
    return Facts([(name, value if isinstance(value, Line) else line(value)) for name, value in pairs])


def command(*lines: str) -> Command:
    """Return the commands that give the figures above."""
    return Command(lines)


def counted(number: int, thing: str) -> str:
    """Return ``1 trial`` or ``2 trials``."""
    return f"{number} {thing}{'' if number == 1 else 's'}"


def picture(path: Path, label: str, caption: Line) -> Picture:
    """Return the PNG in a file; if it can't be read, a picture that says why."""
    try:
        content = b"" if path.is_symlink() else read_file(path, PICTURE)
    except OSError as error:
        return Picture(label, "", f"{path.name} can't be read ({error.strerror})", caption)
    # A link may lead to any other file of the reader, who may send the page to other people.
    if not content.startswith(_PNG):
        return Picture(label, "", f"{path.name} is no picture", caption)
    return Picture(label, base64.b64encode(content).decode(), "", caption)

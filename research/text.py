"""Rounding of figures, and escaping of foreign text for terminals, shells, Markdown, JSON and CSV.

A space, a record or a ledger may come from anybody. Its text is shown as it is: no character of it moves the cursor of
a terminal, ends a shell's word, styles a document or becomes a formula in a spreadsheet.
"""

from __future__ import annotations

import json
import math
import os
import re
import shlex
import unicodedata

_BIDIRECTIONAL = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_UNPRINTABLE = frozenset({"Cc", "Cs", "Zl", "Zp"})  # control characters, lone surrogates, separators of lines
_NAMED = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}
_SHORT, _MEDIUM = 0x100, 0x10000  # code points that two and four hexadecimal digits can write
# The beginning of a formula in a spreadsheet, also as full-width characters and after another separator.
_FORMULA = re.compile(r"(^|[;\t])(?=[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20])")
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
# An underscore inside a word is not emphasis.
_MARKDOWN = re.compile(r"([\\`*\[\]<>&|~$]|(?<![^\W_])_|_(?![^\W_]))")


def number_text(value: object) -> str:
    """Return a figure for a table, with at most five digits; ``-`` for None."""
    if isinstance(value, bool) or value is None:
        return "-" if value is None else str(value)
    if isinstance(value, float):
        return f"{value:.2f}" if 0.1 <= abs(value) < 1e5 else f"{value:.3g}"  # noqa: PLR2004 - what reads well
    return visible(str(value))


def visible(text: str, *, lines: bool = False) -> str:
    r"""Return ``text`` with each control character written out: ``\x1b`` in place of an escape.

    Lone surrogates and the characters that reverse the direction of text are written out, too. With ``lines``, line
    feeds and tabs stay as they are. Everything else stays, even if it resembles markup.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(character if _is_shown(character, lines=lines) else _written_out(character) for character in text)


def _is_shown(character: str, *, lines: bool) -> bool:
    if character in "\n\t":
        return lines
    return unicodedata.category(character) not in _UNPRINTABLE and character not in _BIDIRECTIONAL


def _written_out(character: str) -> str:
    code = ord(character)
    if character in _NAMED:
        return _NAMED[character]
    return f"\\x{code:02x}" if code < _SHORT else f"\\u{code:04x}" if code < _MEDIUM else f"\\U{code:08x}"


def shell(*words: object) -> str:
    """Return the words as one command line that a POSIX shell splits into exactly these words."""
    return " ".join(_shell_word(str(word)) for word in words)


def _shell_word(word: str) -> str:
    if visible(word) == word:
        return shlex.quote(word)
    # $'...' is the quoting that can hold control characters. Every byte that is not plain becomes \xNN.
    plain = (chr(byte) if chr(byte).isalnum() and byte < 0x80 else f"\\x{byte:02x}" for byte in os.fsencode(word))  # noqa: PLR2004 - ASCII
    return f"$'{''.join(plain)}'"


def json_text(value: object, *, indent: int | None = 1) -> str:
    """Return ``value`` as standard JSON, in which a number that is not finite is null."""
    return json.dumps(finite_json(value), indent=indent, allow_nan=False)


def finite_json(value: object) -> object:
    """Return a JSON value with None in the place of each number that is not finite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: finite_json(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [finite_json(one) for one in value]
    return value


def csv_cell(value: object) -> object:
    """Return a cell of a CSV file: text that a spreadsheet would run as a formula gets a ``'`` before it.

    Numbers stay numbers, and so does text that is a number (``-3``).
    """
    if not isinstance(value, str) or _NUMBER.fullmatch(value):
        return value
    return _FORMULA.sub(r"\1'", value)


def markdown_code(text: str, *, in_table: bool = False) -> str:
    """Return ``text`` as a code span, which shows it as it is."""
    shown = visible(text)
    if in_table:
        shown = shown.replace("|", "\\|")
    longest = max((len(run) for run in re.findall("`+", shown)), default=0)
    if longest == 0:
        return f"`{shown}`"
    fence = "`" * (longest + 1)
    return f"{fence} {shown} {fence}"


def markdown_text(text: str) -> str:
    """Return ``text`` as Markdown that reads as ``text``: no link, picture, emphasis, table or HTML."""
    return _MARKDOWN.sub(r"\\\1", visible(text))

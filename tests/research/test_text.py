"""Text that is not ours: shown as it is, and harmless in a terminal, a shell, a table, a document and a spreadsheet."""

from __future__ import annotations

import json
import math
import subprocess

import pytest

from research.text import csv_cell, json_text, markdown_code, markdown_text, number_text, shell, visible

LEGAL = [
    "[relu]",
    "a_b",
    "x&y",
    "[/a]",
    "<b>",
    ":smile:",
    "größe",
    "α=β",
    "日本",
    "👩‍🔬",
    "C:\\temp",
    "50 %",
    "$x$",
    "`a`",
]


@pytest.mark.parametrize("text", LEGAL)
def test_visible_of_printable_text_is_that_text(text):
    """Names that look like markup, and every script of the world, are shown as they are."""
    assert text == visible(text)
    assert text == number_text(text)


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (r"\x1b]0;title\x07", "\x1b]0;title\x07"),
        (r"\x1b[2J\x1b[H", "\x1b[2J\x1b[H"),
        (r"\x9b2J", "\x9b2J"),  # the escape of eight bits
        (r"a\rb", "a\rb"),
        (r"a\nb\tc", "a\nb\tc"),
        (r"\x00\x08\x7f", "\x00\x08\x7f"),
        (r"abc\u202egnp.exe", "abc\u202egnp.exe"),
        (r"\u2066x\u2069", "\u2066x\u2069"),
        (r"\u2028", "\u2028"),
        (r"\ud800", "\ud800"),
    ],
)
def test_visible_of_control_characters_writes_them_out(shown, text):
    """Neither a terminal nor an encoder meets them."""
    assert shown == visible(text)
    assert visible(text) == visible(visible(text))


def test_visible_with_lines_keeps_line_feeds_and_tabs():
    """A table, a traceback and a page of text stay what they are."""
    assert visible("a\n\tb\x1b", lines=True) == "a\n\tb\\x1b"


@pytest.mark.parametrize(
    "words",
    [
        ("research", "resume", "sweeps/quick"),
        ("research", "resume", 'my sweeps/it\'s "here"'),
        ("research", "show", "$HOME; rm -rf `x` & | > < * ? [a] {b} ~ # !"),
        ("research", "show", "a\nb\tc\x1b[2J\x07"),
        ("research", "show", "größe/日本"),
        ("research", "show", ""),
        ("research", "show", "back\\slash 'and' \n quote"),
    ],
)
def test_shell_of_any_words_gives_them_back(words):
    """bash splits the printed command into exactly the words that are meant, and none is run."""
    line = shell(*words)
    assert line == visible(line)
    script = f"for word in {line}; do printf '%s\\0' \"$word\"; done"
    answer = subprocess.run(["bash", "-c", script], capture_output=True, check=True)
    assert [*words, ""] == answer.stdout.decode().split("\0")


def test_shell_of_plain_words_has_no_quotes():
    """The usual command stays easy to read."""
    assert shell("research", "resume", "sweeps/quick-20240101") == "research resume sweeps/quick-20240101"


@pytest.mark.parametrize(
    ("shown", "cell"),
    [
        ("'=cmd|' /C calc'!A0", "=cmd|' /C calc'!A0"),
        ("'+1+1", "+1+1"),
        ("'-1+1", "-1+1"),
        ("'@SUM(1)", "@SUM(1)"),
        ("'\t'=1", "\t=1"),
        ("'\r=1", "\r=1"),
        ("'＝1", "＝1"),
        ("a;'=1", "a;=1"),
        ("-3", "-3"),
        ("+1.5e-3", "+1.5e-3"),
        ("-.5", "-.5"),
        (-3, -3),
        (-0.5, -0.5),
        (None, None),
        (True, True),
        ("[-1, 2]", "[-1, 2]"),
        ("relu", "relu"),
        ("a=b", "a=b"),
        ("", ""),
    ],
)
def test_csv_cell_of_a_formula_is_text(shown, cell):
    """A spreadsheet runs nothing; numbers, and texts that are numbers, stay."""
    assert shown == csv_cell(cell)
    assert type(shown) is type(csv_cell(cell))


def test_json_text_of_numbers_that_are_not_finite_is_null():
    """Every reader of JSON understands it."""
    told = json_text({"a": [math.inf, -math.inf, math.nan, 1.5], "b": {"c": (math.nan,)}}, indent=None)
    assert told == '{"a": [null, null, null, 1.5], "b": {"c": [null]}}'
    assert json.loads(json_text({"x": "\x1b[2J"})) == {"x": "\x1b[2J"}
    assert "\x1b" not in json_text({"x": "\x1b[2J"})


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        ("`a_b`", "a_b"),
        ("`[relu]`", "[relu]"),
        ("`` a`b ``", "a`b"),
        ("``` ``<b>`` ```", "``<b>``"),
        (r"`a\nb`", "a\nb"),
    ],
)
def test_markdown_code_of_any_text_ends_where_the_text_ends(shown, text):
    """A backtick in a name does not end the code span."""
    assert shown == markdown_code(text)


def test_markdown_code_in_a_table_keeps_its_cell():
    """A bar is no border."""
    assert markdown_code("a|b", in_table=True) == r"`a\|b`"


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        ("val/nll_iwae", "val/nll_iwae"),
        (r"\[x\](http://e)", "[x](http://e)"),
        (r"\<img src=x\>", "<img src=x>"),
        (r"!\[x\](y)", "![x](y)"),
        (r"\*\*a\*\* \_b\_", "**a** _b_"),
        (r"x\&amp;y", "x&amp;y"),
        (r"a\\nb", "a\nb"),
    ],
)
def test_markdown_text_of_markup_reads_as_it_is(shown, text):
    """No link, no picture, no tag, no new line; the names of metrics stay plain."""
    assert shown == markdown_text(text)

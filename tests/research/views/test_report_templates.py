"""The report's templates: every text is escaped, a missing value is an error, and a built wheel has the files."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import zipfile
from html import unescape
from pathlib import Path
from typing import get_args

import pytest
from jinja2 import UndefinedError

from research import provenance
from research.views.report import elements, templates
from research.views.report.elements import Command, Details, Facts, Heading, Note, Paragraph, Plot, Source, line, table
from research.views.report.page import html
from research.views.report.section import Group, Section
from tests.support.invented import hostile
from tests.support.places import ROOT
from tests.support.synthetic import new_ledger

FOLDER = Path(templates.__file__).parent
FILES = {"page.html", "elements.html", "style.css", "script.js"}
HOSTILE = [
    "<script>alert(1)</script>",
    '"\' onerror=\'alert(1)" x="',
    "{{ 7 * 7 }}{% raw %}{# c #}",
    "&amp; &lt;b&gt;",
    "</title></style></script></pre><!--",
]


def rendered(*blocks, title="t", name="", anchor="a"):
    """A page with these blocks, without a script of plotly's."""
    groups = [Group(name, [Section(anchor, title, blocks)])]
    return templates.render(
        "page.html", title=title, subtitle=title, groups=groups, drawn="now", plotly="", nonce="only"
    )


def blocks_of(text):
    """A block of each kind that holds the text wherever it can."""
    picture = elements.Picture(text, "", text, line(text, elements.Figure(text, text, text), style="parameters"))
    return {
        "heading": Heading(text),
        "paragraph": Paragraph(text),
        "note": Note(text),
        "command": Command((text, text)),
        "table": table([text, "b"], [[text, line(text)], [1.5, None]], name=text),
        "facts": elements.facts_list([(text, text)]),
        "source": Source(text),
        "details": Details(text, Facts([(text, line(text))])),
        "plot": Plot("chart-1", 100, 100, "[]", "{}", "{}"),
        "pictures": elements.Pictures([picture, elements.Picture(text, "AA==", "", line(text))]),
    }


def test_blocks_of_each_kind_have_a_template():
    """A kind that the templates don't know would be an error in a reader's hands."""
    kinds = {block.kind for block in get_args(elements.Block)}
    assert kinds == set(blocks_of("x"))
    for block in blocks_of("x").values():
        assert "<" in rendered(block)


def test_block_of_an_unknown_kind_is_an_error():
    """It is not left out in silence."""
    unknown = type("Unknown", (), {"kind": "unknown"})()
    with pytest.raises(UndefinedError):
        rendered(unknown)


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("kind", sorted(blocks_of("x")))
def test_block_of_hostile_text_shows_it(kind, text):
    """The page has the same tags as with a harmless text, in whatever place the text stands, and the text reads as it is."""
    page = rendered(blocks_of(text)[kind], title=text, name=text, anchor=text)
    plain = rendered(blocks_of(re.sub("[^/_]", "x", text))[kind], title="t", name="n", anchor="a")
    assert re.findall(r"<[/!]?[\w-]+", page) == re.findall(r"<[/!]?[\w-]+", plain)
    assert text in unescape(page.replace("<wbr>", ""))


def test_render_of_control_characters_writes_them_out():
    """Escapes, bells and characters that reverse the direction of text do nothing in a page either."""
    page = rendered(*blocks_of("\x1b[2J\x07\x9b\u202ex").values(), title="\x1b")
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", page)
    assert r"\x1b[2J\x07\x9b\u202ex" in page


def test_render_without_a_value_is_an_error():
    """A value that a template needs and nobody gave is no empty place in the page."""
    with pytest.raises(UndefinedError, match="is undefined"):
        templates.render("page.html")


def test_html_of_two_pages_has_two_nonces(tmp_path):
    """The scripts' token belongs to one page: it can't be learnt from another."""
    ledger = new_ledger(tmp_path / "newborn")
    first, second = (re.search(r"'nonce-([^']+)'", html([ledger]))[1] for _ in range(2))
    assert first != second


def test_html_of_template_syntax_shows_it(tmp_path):
    """A parameter's name that is a Jinja2 expression is not evaluated."""
    page = html([hostile(tmp_path / "sweep", "{{ 7 * 7 }}{% if x %}")])
    assert "{{ 7 * 7 }}{% if x %}" in unescape(page)


def test_html_is_made_by_templates_only():
    """No Python string of the report is HTML, and a template passes only plotly's JSON and code through unescaped."""
    tag = re.compile(
        r"</?(a|b|body|code|dd|div|dl|dt|figure|h\d|head|html|img|li|p|pre|script|span|style|t[dhr]|table|ul)\b[^a-z]"
    )
    for path in sorted(FOLDER.parent.rglob("*.py")):
        nodes = list(ast.walk(ast.parse(path.read_text())))
        documentation = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
        for node in nodes:
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation:
                assert not tag.search(node.value), (path.name, node.lineno)
    unescaped = [
        found for path in FOLDER.glob("*.html") for found in re.findall(r"{{ ([^}]*)\| *safe", path.read_text())
    ]
    assert sorted(name.strip() for name in unescaped) == ["one.config", "one.data", "one.layout", "plotly"]


def test_wheel_has_the_templates(tmp_path):
    """An installed package draws the same page as a checkout."""
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("research", "search_spaces", "vae"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    build = "from setuptools.build_meta import build_wheel; print(build_wheel('dist'))"
    done = subprocess.run([sys.executable, "-c", build], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {f"research/views/report/templates/{name}" for name in FILES} <= names
    assert {path.name for path in FOLDER.iterdir() if path.is_file() and path.suffix != ".py"} == FILES


def test_package_files_of_a_packed_copy_have_the_templates(tmp_path, monkeypatch):
    """A copy without git and RECORD is packed again with what the report needs, and without what lies there by chance."""
    folder = tmp_path / "research" / "views" / "report" / "templates"
    folder.mkdir(parents=True)
    for name in (*FILES, "__init__.py", ".env", "notes.txt"):
        (folder / name).write_text("x")
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    assert {path.name for path in provenance.package_files()} == {*FILES, "__init__.py"}

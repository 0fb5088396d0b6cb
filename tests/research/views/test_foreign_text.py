"""A ledger that a stranger wrote: what it holds is shown and exported as text, wherever it is shown."""

from __future__ import annotations

import csv
import io
import json
import re

import pytest

from research.ledger.log import Ledger
from research.models.model_card import model_card
from research.terminal import console
from research.views.live import LiveView
from research.views.report.page import html
from research.views.show import glance
from tests.support.invented import hostile

ESCAPES = "\x1b]0;owned\x07\x1b[2J\x9b1m\u202ex"
WRITTEN_OUT = r"\x1b]0;owned\x07\x1b[2J\x9b1m\u202ex"
MARKUP = ["[relu]", "[/a]", "a_b", "x&y", ":smile:", "[link=http://e]x[/link]", "[bold red]x"]


def printed(renderable, *, terminal=False):
    """What a console of 400 columns shows."""
    to = io.StringIO()
    console(file=to, width=400, height=60, force_terminal=terminal, color_system=None).print(renderable)
    return to.getvalue()


@pytest.mark.parametrize("text", MARKUP)
def test_show_of_names_like_markup_has_them_as_they_are(tmp_path, text):
    """Parameter names, choices, reasons and the measure."""
    ledger = hostile(tmp_path / "sweep", text)
    told = printed(glance(ledger))
    assert f"  {text}={text}" in told
    assert f"counts {text}" in told
    assert f"ValueError: {text}" in told


@pytest.mark.parametrize("text", MARKUP)
def test_live_view_of_names_like_markup_has_them_as_they_are(tmp_path, text):
    """As a table on a terminal, and as lines in a pipe; the driver lives on."""
    ledger = hostile(tmp_path / "sweep", text)
    to = io.StringIO()
    live = LiveView(console(file=to, width=400), ledger)
    for view in ledger.trials.values():
        live.started(view)
        live.ended(view)
    live.note(f"a note of {text}")
    lines = to.getvalue()
    assert f"{text}={text}" in lines
    assert f"bug: ValueError: {text}" in lines
    assert f"a note of {text}" in lines
    assert f"{text}={text}" in printed(live.frame(), terminal=True)


def test_views_of_escapes_write_them_out(tmp_path):
    """A stranger's text sets no title and clears no screen: neither in a table, nor in a line, nor in the live view."""
    ledger = hostile(tmp_path / "sweep", ESCAPES)
    to = io.StringIO()
    live = LiveView(console(file=to, width=400), ledger)
    for view in ledger.trials.values():
        live.started(view)
        live.ended(view)
    pages = [printed(glance(ledger)), printed(live.frame(), terminal=True), to.getvalue()]
    for page in pages:
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", page)
        assert WRITTEN_OUT.replace(r"\x07", "") in page.replace(r"\x07", "")  # rich's Text drops a bell by itself


def test_views_of_a_line_feed_forge_no_line(tmp_path):
    """A value with a line feed in it stays in its line."""
    told = printed(glance(hostile(tmp_path / "sweep", "x\nsweep all is well")))
    assert not any(line.startswith("sweep all is well") for line in told.splitlines())


def test_verbs_of_a_hostile_sweep_show_it(tmp_path, research):
    """`show`, `show --json`, `watch --once` and `report --json`: exit code and output of an ordinary sweep."""
    directory = tmp_path / "sweep"
    hostile(directory, f"[/x]{ESCAPES}")
    for verb in (("show", str(directory)), ("watch", "--once", str(directory))):
        code, told = research(*verb)
        assert code == 0
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", told)
        assert "[/x]" in told
    code, told = research("show", "--json", str(directory))
    assert code == 0
    assert f"[/x]{ESCAPES}" in json.loads(told)["trials"][0]["params"]
    assert "\x1b" not in told


def test_report_of_markup_is_text_under_a_policy(tmp_path):
    """HTML is escaped, control characters are written out, and the page may load and run nothing that is not its own."""
    page = html([hostile(tmp_path / "sweep", f"<script>alert(1)</script><img src=x onerror=alert(2)>{ESCAPES}")])
    nonce = re.search(r'<meta http-equiv="Content-Security-Policy" content="[^"]*script-src \'nonce-([^\']+)\'', page)[
        1
    ]
    assert "default-src 'none'" in page
    assert page.count(f'<script nonce="{nonce}">') == len(
        re.findall(r"<script[\s>]", re.sub(r"<script nonce=[^>]*>.*?</script>", "<script >", page, flags=re.DOTALL))
    )
    assert "<script>alert(1)" not in page
    assert "<img src=x" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "\x1b" not in page
    assert "\u202e" not in page


def test_csv_of_formulas_is_text(tmp_path, research):
    """Names and choices that a spreadsheet would run are text; the numbers stay numbers."""
    directory = tmp_path / "sweep"
    hostile(directory, '=HYPERLINK("http://e","x")')
    code, _ = research("report", str(directory), "--csv", str(tmp_path / "tables"))
    assert code == 0
    for file in (tmp_path / "tables").glob("*.csv"):
        rows = list(csv.reader(io.StringIO(file.read_text())))
        for cell in (cell for row in rows for cell in row):
            assert not cell.startswith(("=", "@", "\t")), (file, cell)
            if cell.startswith(("-", "+")):
                float(cell)
    rows = list(csv.DictReader(io.StringIO((tmp_path / "tables" / "trials.csv").read_text())))
    assert any("'=HYPERLINK" in str(cell) for cell in rows[0].values())
    elbo = next(name for name in rows[0] if name.endswith("val/elbo"))
    assert float(rows[0][elbo]) < 0


def test_model_card_of_a_hostile_record_is_text(tmp_path):
    """A sweep's name, a kind, a metric's name and a picture's name hold markup: Markdown shows them."""
    ledger = Ledger.open(hostile(tmp_path / "sweep", "x").directory)
    config = json.loads(json.dumps(dict(ledger.trials[0].created.config)))
    config["data"]["kind"] = "a`![x](http://e)`b"
    record = {
        "trial": 0, "sweep": "s`<script>`", "status": "COMPLETE", "seed": 1, "config_hash": "c" * 64,
        "data_hash": "d" * 64, "split_hash": "e" * 64, "code": {}, "config": config,
    }  # fmt: skip
    row = {"epoch": 1, "val/a|b`c": 1.5, "measure": "m`[x](http://e)"}
    card = model_card(config, row, record, ["x](http://e) .png"])
    assert "`` a`![x](http://e)`b ``" in card
    assert "`` s`<script>` ``" in card
    assert r"| `` val/a\|b`c `` | 1.5000 |" in card
    assert "`` m`[x](http://e) ``" in card
    assert "](x%5D%28http%3A//e%29%20.png)" in card

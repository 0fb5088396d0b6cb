"""Consoles that show text as it is, standard output that is closed, and what keeps a process from ending."""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.table import Table
from rich.text import Text

from research import terminal
from research.terminal import console
from tests.support.places import ROOT

PROGRAM = """
import sys
sys.argv = ["research", *{arguments!r}]
from research.cli import app
{before}
app.program()
"""


def shown(renderable, **options):
    """What a console of 200 columns prints."""
    to = io.StringIO()
    console(file=to, width=200, **options).print(renderable)
    return to.getvalue().rstrip("\n")


@pytest.mark.parametrize(
    "text", ["[relu]", "[/x]", "[bold]x[/bold]", "[link=http://e]x[/link]", ":smile:", "a_b x&y", "\\[a]"]
)
def test_console_shows_markup_as_it_is(text):
    """Text that rich would take for markup is text, alone and in a table's head and cells."""
    assert text == shown(text)
    table = Table(box=None)
    table.add_column(text)
    table.add_row(text)
    assert [text, text] == [line.strip() for line in shown(table).splitlines()]


def test_console_is_made_in_one_place():
    """No other module makes a console of rich's, prints past ours, or asks for markup, emoji or highlighting."""
    for path in sorted((ROOT / "research").rglob("*.py")):
        if path == Path(terminal.__file__):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            where = f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Attribute):
                assert node.attr != "from_markup", where
            if isinstance(node, ast.ImportFrom):
                names = {name.name for name in node.names}
                assert node.module != "rich" or not names & {"print", "get_console", "inspect"}, where
            if isinstance(node, ast.Call):
                called = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
                assert called != "Console", where
                for option in node.keywords:
                    off = isinstance(option.value, ast.Constant) and not option.value.value
                    assert option.arg not in {"markup", "emoji", "highlight"} or off, where


@pytest.mark.parametrize("wrap", [str, Text, lambda text: Text.assemble(("a", "bold"), text)])
def test_console_writes_control_characters_out(wrap):
    """Escapes of a stranger's text reach no terminal; rich's own styles do."""
    told = shown(wrap("\x1b]0;owned\x07\x1b[2J\x9b1m\rx"), force_terminal=True)
    assert re.search(r"\\x1b\]0;owned(\\x07)?\\x1b\[2J\\x9b1m(\\r)?x", told)  # rich's Text drops some by itself
    assert "\x1b]" not in told
    assert "\x1b[2J" not in told
    assert "\x1b[1m" in shown(Text("x", style="bold"), force_terminal=True)


def program(*arguments, before="", stdout=None, timeout=60):
    """Run the command line in a process of its own."""
    code = PROGRAM.format(arguments=list(arguments), before=before)
    return subprocess.run(
        [sys.executable, "-c", code], stdout=stdout or subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=timeout, check=False
    )  # fmt: skip


VERB = """
import os, typer
from research import terminal
@app.app.command("talk")
def talk():
    for number in range(20000):
        {how}
"""


@pytest.mark.parametrize(
    "how",
    [
        "terminal.say('line ' * 9)",
        "typer.echo('line ' * 9)",
        "print('line ' * 9)",
        "terminal.console().print('line ' * 9)",
    ],
)
def test_verb_whose_reader_goes_ends_with_141_and_no_word(how):
    """`research ... | head` is what a person does all day: no traceback, and a code that says why."""
    code = PROGRAM.format(arguments=["talk"], before=VERB.format(how=how))
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as piped:
        piped.stdout.read(30)
        piped.stdout.close()
        assert piped.wait(60) == 141
        assert piped.stderr.read() == b""


@pytest.mark.parametrize("closed", [">&-", "1>&- 2>&-", ">&- <&-"])
def test_verb_with_closed_output_ends_with_141(closed):
    """A closed descriptor is no traceback either."""
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m research.cli --help {closed}"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 141
    assert done.stdout + done.stderr == ""


def test_verb_on_a_full_disk_says_so():
    """A reader that has gone needs no word; a disk that is full does."""
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = program("--help", stdout=full)
    assert done.returncode == 141
    assert done.stderr == "error: standard output can't be written (No space left on device)\n"


def test_error_with_closed_standard_error_keeps_its_code():
    """Nobody reads the line, and the code is that of a person's mistake."""
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m research.cli show /nowhere 2>&-"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2


def test_file_opened_after_a_closed_descriptor_is_not_written_into(tmp_path):
    """Standard output was closed: the next file that is opened must not become it."""
    before = f"opened = None\n@app.app.command('open')\ndef talk():\n    global opened\n    opened = open({str(tmp_path / 'x')!r}, 'w')\n    import os\n    os.write(2, b'to error')\n    assert opened.fileno() > 2\n"
    code = PROGRAM.format(arguments=["open"], before=before)
    (tmp_path / "run.py").write_text(code)
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} {tmp_path / 'run.py'} 0<&- 2>&-"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert (tmp_path / "x").read_text() == ""


def test_error_shows_control_characters(tmp_path):
    """An error on standard error quotes what a person typed, and a terminal obeys none of it."""
    done = program("show", str(tmp_path / "a\x1b[2Jb"))
    assert done.returncode == 2
    assert "\x1b" not in done.stderr
    assert r"a\x1b[2Jb" in done.stderr


@pytest.mark.parametrize(
    ("named", "left"),
    [
        (
            "thread 'forever'",
            "import threading, time\nthreading.Thread(target=time.sleep, args=(600,), name='forever').start()",
        ),
        (
            "process 'child'",
            (
                "import multiprocessing, time\n"
                "multiprocessing.get_context('fork').Process(target=time.sleep, args=(20,), name='child').start()"
            ),
        ),
    ],
)
def test_process_ends_although_a_thread_was_left_behind(named, left):
    """What would keep Python from ending is named, and the verb's code is the process's."""
    began = time.monotonic()
    done = program("show", "/nowhere", before=left)
    assert done.returncode == 2
    assert f"not waited for: {named}" in done.stderr
    assert time.monotonic() - began < 60


def test_process_waits_for_a_thread_that_ends():
    """A thread that has something to finish finishes it, without a word."""
    left = "import threading, time\nthreading.Thread(target=lambda: (time.sleep(1), print('done'))).start()"
    done = program("show", "/nowhere", before=left)
    assert (done.returncode, done.stdout) == (2, "done\n")
    assert "not waited" not in done.stderr

"""The commands of the README and of the tutorials work as they are printed."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer

from research.cli.app import app
from tests.support.places import ROOT
from tests.support.verbs import environment

PAGES = ["README.md", "docs/tutorial.md", "docs/tutorial-images.md"]
SHELL = {"sh", "console"}
BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>[^>]+?) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page, and the comment above it."""

    language: str
    text: str
    mark: str

    @property
    def runs(self) -> bool:
        """True if a reader can run the block without a cluster and without an account."""
        return not self.mark.startswith("not run: ")


def blocks(page):
    """Return the blocks of a page in their order."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return [Block(found["language"], found["text"], found["mark"] or "") for found in BLOCK.finditer(text)]


def commands(page):
    """Return the commands in the shell blocks of a page, each as (line, whether it runs)."""
    return [
        (line.removeprefix("$ "), block.runs)
        for block in blocks(page)
        if block.language in SHELL
        for line in block.text.replace("\\\n", " ").splitlines()
        if line.strip() and (block.language == "sh" or line.startswith("$ "))
    ]


def every_page():
    """Return every document that shows commands."""
    return sorted(str(path.relative_to(ROOT)) for path in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


@pytest.mark.parametrize("page", PAGES)
def test_pages_blocks_are_marked_with_a_reason(page):
    """A comment above a block names a file, or the reason why the block is not run."""
    for block in blocks(page):
        assert re.fullmatch(r"|file: [\w.]+|not run: [^:]{10,}", block.mark)


@pytest.mark.parametrize("page", every_page())
def test_pages_research_commands_are_parsed(page):
    """Every verb and every option that a document shows exists."""
    root = typer.main.get_command(app)
    for line, _ in commands(page):
        if not line.startswith("research ") or line.startswith("research --"):
            continue
        verb, *given = shlex.split(line, comments=True)[1:]
        command = root.commands[verb]
        known = {name for option in command.params for name in (*option.opts, *option.secondary_opts)}
        if verb == "submit":  # it passes the options of a sweep on
            known |= {
                name for option in root.commands["sweep"].params for name in (*option.opts, *option.secondary_opts)
            }
        options = {word.partition("=")[0] for word in given if word.startswith("--")}
        assert options <= known | {"--help"}, line


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("page", [PAGES[0], *(pytest.param(page, marks=pytest.mark.long) for page in PAGES[1:])])
def test_pages_commands_run_in_order_in_a_fresh_folder(page, tmp_path):
    """Every block that needs neither a cluster nor an account runs after those before it, and exits with 0."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt", ".venv"):  # what `make` needs
        (tmp_path / name).symlink_to(ROOT / name)
    binaries = Path(sys.executable).parent
    variables = environment() | {"PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}", "RESEARCH_DATA_DIR": "data"}
    for block in blocks(page):
        if block.mark.startswith("file: "):
            (tmp_path / block.mark.removeprefix("file: ")).write_text(block.text, encoding="utf-8")
        elif block.runs and block.language in {"sh", "python"}:
            program = ["bash", "-ec"] if block.language == "sh" else [sys.executable, "-c"]
            done = subprocess.run(
                [*program, block.text],
                cwd=tmp_path,
                env=variables,
                capture_output=True,
                text=True,
                timeout=900,
                check=False,
            )
            assert done.returncode == 0, f"{block.text}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"

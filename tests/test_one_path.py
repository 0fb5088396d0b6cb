"""From a verb of the command line to the arithmetic of one step there are few functions of our own."""

from __future__ import annotations

import re
import sys
from itertools import groupby
from pathlib import Path

import pytest
import typer

from research.cli.app import app
from tests.support.places import ROOT

PACKAGES = (ROOT / "research", ROOT / "vae")
MOST = 7  # functions from a verb to the bound of a batch


def own_stack(frame):
    """Return (file, function) of each frame of ours on the stack of ``frame``, the outermost first."""
    stack = []
    while frame is not None:
        file = Path(frame.f_code.co_filename)
        if any(package in file.parents for package in PACKAGES):
            stack.append((str(file.relative_to(ROOT)), frame.f_code.co_qualname))
        frame = frame.f_back
    return stack[::-1]


def module_of(file):
    """Return what is counted as one module: a file, or the whole command line, which splits a verb for its imports."""
    return "research/cli" if file.startswith("research/cli/") else file


def entered(stack, verb):
    """Return the function by which each module is entered, from the function ``verb`` on, without helpers of ``vae.system``."""
    stack = stack[next(position for position, (_, name) in enumerate(stack) if name == verb) :]
    modules = groupby(stack, key=lambda each: module_of(each[0]))
    return [next(frames)[1] for module, frames in modules if not module.startswith("vae/system/")]


def walked(arguments, last, through):
    """Run a verb; return the stack at the first call of ``last`` below the module ``through``."""
    found = []

    def look(frame, event, _):
        if event == "call" and not found and frame.f_code.co_qualname == last:
            stack = own_stack(frame)
            if any(file == through for file, _ in stack):
                found.append(stack)

    before = sys.getprofile()
    sys.setprofile(look)
    try:
        app(arguments, standalone_mode=False)
    except typer.Exit as ended:
        assert ended.exit_code == 0
    finally:
        sys.setprofile(before)
    return found[0]


def listed():
    """Return the functions in the table of docs/ARCHITECTURE.md, by row."""
    section = (ROOT / "docs" / "ARCHITECTURE.md").read_text(encoding="utf-8").partition("## The one path")[2]
    rows = re.findall(r"^\| (`[^|]+) \|", section.partition("\n\n#")[0], re.MULTILINE)
    return [re.findall(r"`([\w.]+)`", row) for row in rows]


@pytest.mark.slow
@pytest.mark.parametrize("last", ["VAE.terms", "Elbo.loss"])
def test_sweep_until_the_bound_passes_the_listed_functions(last, tmp_path, monkeypatch):
    """A sweep in one process enters the modules that docs/ARCHITECTURE.md lists, in that order, and no other."""
    monkeypatch.chdir(tmp_path)
    options = ["--trials", "1", "--epochs", "1", "--address", "none", "--wandb", "disabled"]
    stack = walked(["sweep", "quickstart", *options], last, "research/worker/trial.py")
    functions = entered(stack, "sweep")

    assert len(functions) <= MOST
    assert len(functions) == len(listed())
    for function, row in zip(functions, listed(), strict=True):
        assert function in row


@pytest.mark.slow
def test_train_until_the_bound_passes_at_most_seven_functions(tmp_path, monkeypatch):
    """A single run takes a shorter path."""
    monkeypatch.chdir(tmp_path)
    stack = walked(["train", "quickstart", "--set", "epochs=1"], "VAE.terms", "research/experiments/single.py")

    assert entered(stack, "train") == ["train", "train_once", "train", "VAE.terms"]

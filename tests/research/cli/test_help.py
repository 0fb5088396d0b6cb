"""``--help`` waits for no library: neither torch nor Ray nor any of their like is imported for it."""

from __future__ import annotations

import json
import subprocess
import sys

ALL_HELP = """
import contextlib, io, json, sys, typer
from research.cli.app import app
verbs = sorted(typer.main.get_command(app).commands)
for arguments in ([], *([verb] for verb in verbs)):
    with contextlib.redirect_stdout(io.StringIO()) as page:
        app([*arguments, "--help"], standalone_mode=False)
    assert "Usage" in page.getvalue()
print(json.dumps([verbs, sorted({name.partition(".")[0] for name in sys.modules})]))
"""
HEAVY = {
    "matplotlib", "numpy", "optuna", "pandas", "PIL", "plotly", "pyarrow", "ray", "scipy", "sklearn", "torch",
    "torchvision", "vae", "wandb",
}  # fmt: skip


def test_the_help_of_every_verb_imports_nothing_heavy():
    """All pages in one process; what they need is imported when they run."""
    done = subprocess.run([sys.executable, "-c", ALL_HELP], capture_output=True, text=True, check=True)
    verbs, imported = json.loads(done.stdout)
    assert {"sweep", "resume", "report", "sync"} <= set(verbs)
    assert HEAVY & set(imported) == set()

"""``research`` with a raylet that comes up late: python slow_ray.py SECONDS TRIES WORDS... (the first TRIES are late)."""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from pathlib import Path

from ray._private import services

seconds, tries = sys.argv[1], sys.argv[2]
folder = Path(tempfile.mkdtemp(prefix="slow-raylet-"))
late = folder / "raylet"
late.write_text(
    f"#!/bin/bash\nn=$(ls {folder} | grep -c '^try')\ntouch {folder}/try$n\n"
    f'if [ "$n" -lt {tries} ]; then sleep {seconds}; fi\nexec {services.RAYLET_EXECUTABLE} "$@"\n'
)
late.chmod(late.stat().st_mode | stat.S_IXUSR)
services.RAYLET_EXECUTABLE = str(late)

from research.cli import app as cli  # noqa: E402 - after the raylet was replaced
from research.on_ray import starting  # noqa: E402

if "RAY_PATIENCE_S" in os.environ:
    starting.PATIENCE_S = tuple(float(one) for one in os.environ["RAY_PATIENCE_S"].split())
sys.argv = ["research", *sys.argv[3:]]
cli.main()

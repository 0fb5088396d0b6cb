"""Lets the tests of this folder import the benchmark's scripts, as they import each other."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "search_quality"))

"""Where the repository and the files of its tests are, wherever the test that asks is kept."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
FIXTURES = ROOT / "tests" / "fixtures"

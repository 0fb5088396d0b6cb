"""The benchmarks that need no peers' environment still fit the code that they measure."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.support.places import ROOT

BENCHMARKS = ROOT / "benchmarks"


@pytest.mark.slow
@pytest.mark.parametrize(
    "script",
    [
        "stacking.py",
        "trial_parts.py",
        pytest.param("sweep_overhead.py", marks=[pytest.mark.long, pytest.mark.timeout(900)]),
    ],
)
def test_a_benchmark_runs_to_its_end(script):
    """On the bundled digits, as `make bench BENCH=--quick` runs it."""
    environment = {name: value for name, value in os.environ.items() if name != "RESEARCH_DATA_DIR"}
    command = [sys.executable, str(BENCHMARKS / script), "--quick"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip()

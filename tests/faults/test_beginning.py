"""A sweep's directory is there whole or not at all, however its beginning is cut short."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from research.driver.lifecycle import create
from research.errors import UserError
from research.ledger.log import Ledger
from tests.support.places import ROOT
from tests.support.synthetic import settings


@pytest.mark.faults
@pytest.mark.long
@pytest.mark.fault("2 driver killed")
def test_killed_at_every_step_of_its_beginning(tmp_path, tally):
    """SIGKILL before each change of the disk: both events and the space's copy, or no sweep and the name still free."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.killed_beginner", str(tmp_path / "storage")],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
        timeout=200,
    )
    found = json.loads(done.stdout)
    tally.happened(len(found))
    assert set(found) == {None, 2}
    assert found[-1] == 2, "the plan went past the last step"


@pytest.mark.fault("15 two drivers at once")
def test_of_two_that_begin_at_once_the_second_is_refused(tmp_path, tally):
    """Both have seen that the name is free: one line for the later one, the earlier one's sweep as it was."""
    first = create(tmp_path / "s", settings(), ["one"])
    with pytest.raises(UserError, match="exists already"):
        create(tmp_path / "s", settings(), ["two"])
    tally.happened()
    assert Ledger.open(tmp_path / "s").identity == first.identity
    assert [path.name for path in tmp_path.iterdir()] == ["s"]

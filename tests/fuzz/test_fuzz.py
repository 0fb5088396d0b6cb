"""A short run of the fuzzer: `python -m tests.fuzz.fuzz_files --minutes 60` is the long one."""

from __future__ import annotations

import pytest

from tests.fuzz.fuzz_files import fuzz


@pytest.mark.fault("26 random damage to every file that is read")
@pytest.mark.parametrize(
    "rounds", [1, pytest.param(60, marks=[pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(600)])]
)
def test_damaged_files_give_one_of_our_own_errors(tmp_path, tally, rounds):
    """Rounds over every kind of file: no other exception, no hang, no memory beyond a gigabyte, no page of text."""
    findings = []
    for finding in fuzz(tmp_path, seed=0, rounds=rounds, seconds=None):
        tally.happened()
        findings += [] if finding is None else [finding]
    assert not findings, "\n".join(findings)

"""The named checks, on the code as it is. ``test_mutants.py`` shows that each can fail."""

from __future__ import annotations

import pytest

from tests.support.checks import CHECKS


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_arithmetic_is_what_it_says(check):
    """Each promise of checks.py holds."""
    check()

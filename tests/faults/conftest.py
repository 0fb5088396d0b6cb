"""What the faults are committed on: a small sweep, and the twin that nothing happened to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.drivers import LASTING, end_all, undisturbed
from tests.support.verbs import SPACE

if TYPE_CHECKING:
    from pathlib import Path

    from research.ledger.log import Ledger


@pytest.fixture(autouse=True)
def nothing_goes_on():
    """What a test that failed left running is ended before the next."""
    yield
    end_all()


@pytest.fixture(scope="session")
def small_space(tmp_path_factory) -> Path:
    """A user's own space file."""
    path = tmp_path_factory.mktemp("spaces") / "my_space.py"
    path.write_text(SPACE)
    return path


@pytest.fixture(scope="session")
def twin(tmp_path_factory, small_space) -> Ledger:
    """The ledger of a deterministic sweep that nothing happened to."""
    return undisturbed(small_space, tmp_path_factory.mktemp("twin"))


@pytest.fixture(scope="session")
def lasting_twin(tmp_path_factory, small_space) -> Ledger:
    """As ``twin``, of trials that last."""
    return undisturbed(small_space, tmp_path_factory.mktemp("twin"), *LASTING)

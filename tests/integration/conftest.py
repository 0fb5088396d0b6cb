"""Sweeps that several tests look at, each run once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.store_server import gate, object_server  # noqa: F401 - fixtures
from tests.support.verbs import SPACE, Finished, deterministic, research

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def small_space(tmp_path_factory) -> Path:
    """A user's own space file."""
    path = tmp_path_factory.mktemp("spaces") / "my_space.py"
    path.write_text(SPACE)
    return path


@pytest.fixture(scope="session")
def finished(tmp_path_factory, small_space) -> Finished:
    """A whole sweep of 8 trials with the default search, early stopping and W&B offline."""
    storage = tmp_path_factory.mktemp("storage")
    ran = research(
        "sweep", small_space, "--trials", "8", "--name", "whole", "--storage", storage, "--wandb", "offline", "--seed", "5",
        "--min-population", "3",
    )  # fmt: skip
    return Finished(directory=storage / "whole", output=ran.output, code=ran.code)


@pytest.fixture(scope="session")
def twin(tmp_path_factory, small_space) -> Finished:
    """A deterministic sweep that nothing happened to."""
    storage = tmp_path_factory.mktemp("twin")
    ran = research(*deterministic(small_space, storage, "twin"))
    return Finished(directory=storage / "twin", output=ran.output, code=ran.code)

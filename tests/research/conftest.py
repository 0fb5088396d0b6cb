"""Lets the tests of this folder import the helpers beside them, and starts W&B sinks for them."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from research.tracking import Sink

    Start = Callable[..., Sink]

sys.path.insert(0, str(Path(__file__).parent))

from store_server import gate, object_server  # noqa: F401 - fixtures; found by the line above


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, so that nothing of the user's is read and what is written there is seen."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    for name in [name for name in os.environ if name.startswith("WANDB_") or name == "NETRC"]:
        monkeypatch.delenv(name)
    return home


@pytest.fixture
def start(home: Path) -> Iterator[Start]:
    """Starts sinks, and ends at the test's end those that it left."""
    from research.tracking import Sink

    started = []

    def one(sweep_dir: Path, mode: Any = "offline") -> Sink:
        started.append(Sink.start(sweep_dir, mode))
        return started[-1]

    yield one
    for sink in started:
        sink.close(0.0)

"""What tests of several packages of `research` ask for: W&B sinks, an object store, and the command line."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.store_server import gate, object_server  # noqa: F401 - fixtures

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from research.tracking.sink import Sink

    Start = Callable[..., Sink]


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
    from research.tracking.sink import Sink

    started = []

    def one(sweep_dir: Path, mode: Any = "offline") -> Sink:
        started.append(Sink.start(sweep_dir, mode))
        return started[-1]

    yield one
    for sink in started:
        sink.close(0.0)


@pytest.fixture
def cluster_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a launcher's file ``c.yaml``; what that says is read by nobody here."""
    pytest.importorskip("aiohttp", reason="Ray's job client is in the extra 'cluster'")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text("{}")
    return tmp_path


@pytest.fixture
def research(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Any, str]]:
    """Run a command line in this process; its exit code and what it said."""
    from research.cli import app as cli

    def run(*words: str) -> tuple[Any, str]:
        monkeypatch.setattr(sys, "argv", ["research", *words])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        captured = capsys.readouterr()
        return stopped.value.code or 0, captured.out + captured.err

    return run

"""A W&B server that speaks garbage, drips or has no usable address: all is written offline, and the exit is not held."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest

from research.planning.tracking_mode import default_mode
from research.tracking.sink import unreachable
from tests.research.tracking.test_tracking import assert_is_the_ledger
from tests.support.synthetic import new_ledger
from tests.support.wandb_help import append_trial
from tests.support.wandb_reader import read_runs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from research.tracking.sink import Sink

    Start = Callable[..., Sink]

pytestmark = pytest.mark.usefixtures("home")

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n"
ANSWERS = {
    "garbage": (b"\x00\xff\x13garbage\n" * 100, 0.0),
    "drip of the head": (HEAD * 50, 1.0),
    "drip of the body": (HEAD + b" " * 1000, 1.0),  # the head at once
    "a page": (b"HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n<html>hi</html>", 0.0),
    "closes at once": (b"", 0.0),
    "endless head": (b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 5000, 0.0),
    "nonsense in JSON": (b'HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n{"data": [1]', 0.0),
}


@pytest.fixture
def server() -> Iterator[Callable[[str], str]]:
    """Start a server that answers each request in the way that is named; the address."""
    ended = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))

    def answer(connection: socket.socket, kind: str) -> None:
        text, pause = ANSWERS[kind]
        with connection, contextlib.suppress(OSError):
            connection.settimeout(5.0)
            connection.recv(65536)
            if pause and kind.endswith("body"):
                connection.sendall(HEAD)
                text = text.removeprefix(HEAD)
            if not pause:
                connection.sendall(text)
                return
            for byte in text:
                connection.sendall(bytes([byte]))
                if ended.wait(pause):
                    return

    def serve(kind: str) -> None:
        with contextlib.suppress(OSError):
            while not ended.is_set():
                threading.Thread(target=answer, args=(listener.accept()[0], kind), daemon=True).start()

    def begin(kind: str) -> str:
        threading.Thread(target=serve, args=(kind,), daemon=True).start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}"

    yield begin
    ended.set()
    listener.close()


def assert_written_offline(tmp_path: Path, start: Start) -> None:
    """Two trials are in offline runs, and the sink's end took no longer than the driver waits."""
    sweep = tmp_path / "sweep"
    ledger = new_ledger(sweep)
    sink = start(sweep, "online")
    append_trial(ledger, 0, 2)
    append_trial(ledger, 1, 3, "pruned")
    begin = time.monotonic()
    problems = sink.close()
    assert time.monotonic() - begin < 125, "the driver waits for 30 s, on a busy machine for 120"
    assert any("online failed" in problem and "logged offline instead" in problem for problem in problems), problems
    assert not any("log the rest" in problem for problem in problems), problems
    assert_is_the_ledger(read_runs(sweep), ledger)


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("kind", ANSWERS)
def test_sink_server_that_is_none_everything_is_written_offline(
    tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch, server: Callable[[str], str], kind: str
) -> None:
    """Whatever a server sends, each row is offline at the end, within the driver's patience."""
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", server(kind))
    assert_written_offline(tmp_path, start)


ADDRESSES = [
    "nonsense",
    "http://",
    "ftp://host.example",
    "http://[::1",
    "http://127.0.0.1:port",
    "http://a b",
    "://",
    "http://\x7f",
]


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("address", ADDRESSES)
def test_sink_unusable_address_everything_is_written_offline(
    tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    """W&B's client refuses such an address even offline; it is not given to it."""
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", address)
    assert_written_offline(tmp_path, start)


@pytest.mark.parametrize("address", ADDRESSES)
def test_unreachable_unusable_address_is_named_in_one_line(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    """The mode can be decided, and the line has the address."""
    monkeypatch.setenv("WANDB_BASE_URL", address)
    assert default_mode() == "offline"
    reason = unreachable()
    assert reason is not None
    assert "\n" not in reason


def test_unreachable_drip_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, server: Callable[[str], str]) -> None:
    """A byte a second is within each timeout of a socket; the whole answer has a deadline."""
    monkeypatch.setenv("WANDB_BASE_URL", server("drip of the head"))
    assert "has not answered within" in str(unreachable())

"""An S3-compatible server on loopback (moto, in a process of its own), and a gate before it that can be shut."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import subprocess
import sys
import threading
import time

import fsspec
import pytest

from research.store.object_store import _filesystem

BUCKET = "bucket"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1"}
_ANSWERS = {
    403: ("Forbidden", "AccessDenied", "Access Denied"),
    500: ("Internal Server Error", "InternalError", "We encountered an internal error. Please try again."),
}


@pytest.fixture(scope="session")
def object_server():
    """The server's address; it ends with the session."""
    process, url = start_server()
    yield url
    process.kill()
    process.wait()


@pytest.fixture
def gate(object_server, monkeypatch):
    """The way to the server that this test, and what it starts, take; the bucket is there."""
    gate = Gate(object_server)
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", gate.url)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    forget_connections()
    filesystem = _filesystem("s3")
    if not filesystem.exists(BUCKET):
        filesystem.mkdir(BUCKET)
    yield gate
    gate.close()
    forget_connections()


def forget_connections() -> None:
    """What this process asks the store next is asked with the environment as it is then."""
    _filesystem.cache_clear()
    fsspec.get_filesystem_class("s3").clear_instance_cache()


def start_server() -> tuple[subprocess.Popen[bytes], str]:
    """A moto server on a free port; returns when it answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    until = time.monotonic() + 120
    while time.monotonic() < until:
        assert process.poll() is None, "moto ended"
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return process, f"http://127.0.0.1:{port}"
        time.sleep(0.1)
    raise AssertionError("moto did not answer")


class Gate:
    """Passes connections on to a server, or answers 403 or 500 in its place, or closes them without a word."""

    def __init__(self, upstream: str) -> None:
        self.mode: int | str = "open"
        self.turned_away = 0
        host, port = upstream.removeprefix("http://").split(":")
        gate = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                mode = gate.mode
                if mode == "open":
                    _join(self.request, socket.create_connection((host, int(port))))
                    return
                gate.turned_away += 1
                if mode != "closed":
                    _answer(self.request, int(mode))

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        """End it."""
        self._server.shutdown()
        self._server.server_close()


def _join(client: socket.socket, server: socket.socket) -> None:
    def pump(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    up = threading.Thread(target=pump, args=(client, server), daemon=True)
    up.start()
    pump(server, client)
    up.join(timeout=60)
    server.close()


def _answer(client: socket.socket, status: int) -> None:
    phrase, code, message = _ANSWERS[status]
    client.settimeout(0.3)
    with contextlib.suppress(OSError):  # the request, whole: an unread one would reset the connection
        while client.recv(65536):
            pass
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
    head = f"HTTP/1.1 {status} {phrase}\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\n"
    with contextlib.suppress(OSError):
        client.sendall(f"{head}Connection: close\r\n\r\n".encode() + body)

"""Google Cloud Storage: gcsfs itself, against a stand-in for the service, which can't run here.

The stand-in knows three requests (upload, read, list) as https://cloud.google.com/storage/docs/json_api has them. What is
tested is what gcsfs sends for an exclusive creation, and what we make of a refusal.
"""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlparse

import pytest

from research.errors import StorageError
from research.store.object_store import ObjectStore, _filesystem
from tests.support.store_server import forget_connections

pytest.importorskip("gcsfs", reason="gcsfs is not installed: the extra gcs")


class _Service(BaseHTTPRequestHandler):
    objects: dict[str, bytes]
    conditions: list[str | None]
    refusing: bool

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        _, head, content = body.split(b"--==0==", 3)[:3]
        name = json.loads(head.split(b"\n\n", 1)[1])["name"]
        condition = parse_qs(urlparse(self.path).query).get("ifGenerationMatch", [None])[0]
        self.conditions.append(condition)
        if self.refusing:
            self._say(403, {"error": {"code": 403, "message": "no storage.objects.create"}})
        elif condition == "0" and name in self.objects:
            self._say(412, {"error": {"code": 412, "message": "conditionNotMet"}})
        else:
            self.objects[name] = content.split(b"\n\n", 1)[1].removesuffix(b"\n")
            self._say(200, self._facts(name))

    def do_GET(self) -> None:
        name = unquote(urlparse(self.path).path.partition("/o/")[2])
        if not name:
            self._say(200, {"items": [self._facts(name) for name in sorted(self.objects)]})
        elif name in self.objects:
            self._say(200, self.objects[name])
        else:
            self._say(404, {"error": {"code": 404, "message": "No such object"}})

    def log_message(self, *_: object) -> None:
        """Nothing."""

    def _facts(self, name: str) -> dict[str, str]:
        size = str(len(self.objects[name]))
        return {
            "kind": "storage#object",
            "name": name,
            "bucket": "bucket",
            "size": size,
            "etag": "e",
            "generation": "1",
        }

    def _say(self, status: int, answer: object) -> None:
        body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def service(monkeypatch):
    """The stand-in, and gcsfs told to use it."""
    import fsspec

    handler = type("Service", (_Service,), {"objects": {}, "conditions": [], "refusing": False})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("NO_GCE_CHECK", "true")  # google.auth would look for a metadata server
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{server.server_address[1]}")
    forget_connections()
    fsspec.get_filesystem_class("gs").clear_instance_cache()
    yield handler
    fsspec.get_filesystem_class("gs").clear_instance_cache()
    _filesystem.cache_clear()
    server.shutdown()
    server.server_close()


def test_an_event_is_created_on_condition_that_it_is_not_there(service):
    """gcsfs sends ifGenerationMatch=0; the service's 412 is a conflict, unless what is there is what we wrote."""
    store = ObjectStore("gs://bucket/sweep")
    assert store.create("ledger/00000000.json", b"mine")
    assert service.conditions == ["0"]
    assert not store.create("ledger/00000000.json", b"theirs")
    assert store.create("ledger/00000000.json", b"mine")
    assert service.objects == {"sweep/ledger/00000000.json": b"mine"}
    assert store.names() == ["ledger/00000000.json"]
    with pytest.raises(FileNotFoundError):
        store.read("ledger/00000001.json")


def test_a_refusal_is_one_line(service):
    """403 names the place and what to do."""
    service.refusing = True
    with pytest.raises(StorageError, match=r"gs://bucket/sweep can't be written: the store refuses"):
        ObjectStore("gs://bucket/sweep").create("ledger/00000000.json", b"mine")

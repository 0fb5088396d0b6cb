"""As much of W&B's service as its client needs to upload a run: what it was sent is kept, and it can be made to fail."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Received:
    """What came in. ``fail`` maps a part of the path (``graphql``, ``file_stream``, ``upload``) to a status to answer.

    ``delay_s``: how long each answer takes.
    """

    calls: list[tuple[str, Any]] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    fail: dict[str, int] = field(default_factory=dict)
    delay_s: float = 0.0

    def upserted(self) -> list[str]:
        """The ids of the runs, in the order in which they came."""
        names = [(body.get("variables") or {}).get("name") for name, body in self.calls if name == "UpsertBucket"]
        return list(dict.fromkeys(name for name in names if name))

    def history(self, run: str) -> list[dict[str, Any]]:
        """The rows of a run as the service would hold them: each file's line by its offset."""
        lines: dict[int, str] = {}
        for name, body in self.calls:
            if name == f"file_stream {run}":
                part = (body.get("files") or {}).get("wandb-history.jsonl")
                if part:
                    lines |= {part["offset"] + i: line for i, line in enumerate(part["content"])}
        return [json.loads(lines[offset]) for offset in sorted(lines)]


def start_server() -> tuple[ThreadingHTTPServer, Received]:
    """A server on a free port of this machine, and what it receives."""
    received = Received()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments: object) -> None:
            """Say nothing."""

        def do_POST(self) -> None:
            self._answer()

        def do_PUT(self) -> None:
            self._answer()

        def do_GET(self) -> None:
            self._answer()

        def _answer(self) -> None:
            content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            time.sleep(received.delay_s)
            status = next((code for part, code in received.fail.items() if part in self.path), 200)
            reply: dict[str, Any] = {}
            if status != 200:
                reply = {"error": "as asked"}
                received.calls.append((f"refused {self.path}", None))
            elif self.path.startswith("/graphql"):
                body = json.loads(content)
                name = body.get("operationName") or body["query"].split("{")[0].split("(")[0].split()[-1]
                received.calls.append((name, body))
                reply = {"data": _reply(name, body.get("variables") or {}, f"http://{self.headers['Host']}", received)}
            elif "file_stream" in self.path:
                received.calls.append((f"file_stream {self.path.split('/')[-2]}", json.loads(content)))
            elif self.path.startswith("/upload/"):
                received.files[self.path.removeprefix("/upload/")] = content
            out = json.dumps(reply).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(out)))
            self.end_headers()
            self.wfile.write(out)

    class Server(ThreadingHTTPServer):
        def handle_error(self, *arguments: object) -> None:
            """Say nothing of clients that were killed."""

    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, received


def _reply(name: str, given: dict[str, Any], base: str, received: Received) -> dict[str, Any]:
    match name:
        case "UpsertBucket":
            project = {"id": "p", "name": given.get("project") or "p", "entity": {"id": "e", "name": "somebody"}}
            bucket = {
                "id": "r", "name": given.get("name"), "displayName": given.get("displayName"), "description": "",
                "config": "{}", "sweepName": None, "project": project, "historyLineCount": len(received.history(given["name"])),
            }  # fmt: skip
            return {"upsertBucket": {"bucket": bucket, "inserted": True}}
        case "RunResumeStatus":
            rows = received.history(given["name"])
            tail = json.dumps([json.dumps(row) for row in rows[-1:]])
            return {"model": {"bucket": {"historyLineCount": len(rows), "historyTail": tail} if rows else None}}
        case "CreateRunFiles":
            files = [{"name": n, "uploadUrl": f"{base}/upload/{given['run']}/{n}"} for n in given["files"]]
            return {"createRunFiles": {"runID": "r", "uploadHeaders": [], "files": files}}
        case "CreateArtifact":
            return {
                "createArtifact": {
                    "artifact": {"id": "a", "state": "PENDING", "artifactSequence": {"id": "s", "latestArtifact": None}}
                }
            }
        case "CreateArtifactManifest" | "UpdateArtifactManifest":
            file = {"id": "f", "uploadUrl": f"{base}/upload/manifest", "uploadHeaders": []}
            return {name[0].lower() + name[1:]: {"artifactManifest": {"id": "m", "file": file}}}
        case "CreateArtifactFiles":
            edges = [
                {
                    "node": {
                        "storagePath": f"artifacts/{file['name']}",
                        "uploadUrl": f"{base}/upload/artifact/{file['name']}",
                        "uploadHeaders": [],
                        "uploadMultipartUrls": None,
                        "artifact": {"id": "a"},
                    }
                }
                for file in given["input"]["artifactFiles"]
            ]
            return {"createArtifactFiles": {"files": {"edges": edges}}}
        case "CommitArtifact":
            return {"commitArtifact": {"artifact": {"id": "a", "digest": "d"}}}
        case _:
            viewer = {"id": "u", "username": "somebody", "entity": "somebody", "flags": "{}", "teams": {"edges": []}}
            return {"viewer": viewer, "serverInfo": {"features": [], "cliVersionInfo": {}}}

"""A local stand-in for a model hub: the endpoints that push-to-hub and from-hub use."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlparse

import yaml

TOKEN = "hf_standin"


class Hub:
    """What it holds. repos: name → file → content; private: names that were made so."""

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, bytes]] = {}
        self.private: set[str] = set()
        self.requests: list[str] = []
        self.url = ""


def _commit(files: dict[str, bytes]) -> str:
    digest = hashlib.sha1(usedforsecurity=False)
    for name in sorted(files):
        digest.update(name.encode() + files[name])
    return digest.hexdigest()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def _answer(self, status: int, content: bytes | object = b"", **headers: str) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _error(self, status: int, code: str) -> None:
        self._answer(status, {"error": code}, X_Error_Code=code, X_Error_Message=code)

    def _authorised(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = urlparse(self.path).path
        self.hub.requests.append(f"POST {path}")
        if not self._authorised():
            self._error(401, "Unauthorized")
            return
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            exists = name in self.hub.repos
            self.hub.repos.setdefault(name, {})
            private = asked.get("private") or asked.get("visibility") == "private"
            if private and not exists:
                self.hub.private.add(name)
            url = f"{self.hub.url}/{name}"
            self._answer(409 if exists else 200, {"url": url, "name": name, "id": name})
            return
        if path == "/api/validate-yaml":  # a card's front matter
            text = json.loads(body)["content"].split("---")[1]
            errors = [] if isinstance(yaml.safe_load(text), dict) else [{"message": "no mapping"}]
            self._answer(200, {"errors": errors, "warnings": []})
            return
        parts = path.split("/")  # /api/models/USER/NAME/what/main
        name, what = "/".join(parts[3:5]), parts[5]
        if name not in self.hub.repos:
            self._error(404, "RepoNotFound")
        elif what == "preupload":
            files = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": None}
                for f in json.loads(body)["files"]
            ]
            self._answer(200, {"files": files})
        elif what == "commit":
            for line in body.splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    content = base64.b64decode(entry["value"]["content"])
                    self.hub.repos[name][entry["value"]["path"]] = content
            oid = _commit(self.hub.repos[name])
            self._answer(200, {"commitUrl": f"{self.hub.url}/{name}/commit/{oid}",
                               "commitOid": oid})  # fmt: skip
        else:
            self._error(404, "EntryNotFound")

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = urlparse(self.path).path
        self.hub.requests.append(f"{self.command} {path}")
        parts = path.strip("/").split("/")  # USER/NAME/resolve/main/FILE, or api/models/USER/NAME
        api = parts[:2] == ["api", "models"]
        name = "/".join(parts[2:4] if api else parts[:2])
        files = self.hub.repos.get(name)
        if files is None or (name in self.hub.private and not self._authorised()):
            self._error(401 if not self._authorised() else 404, "RepoNotFound")
        elif (parts[5:] or ["main"])[0] not in ("main", _commit(files)) and api:
            self._error(404, "RevisionNotFound")
        elif api:
            siblings = [{"rfilename": file} for file in files]
            facts = {"id": name, "sha": _commit(files), "siblings": siblings}
            self._answer(200, {**facts, "private": name in self.hub.private})
        elif (content := files.get("/".join(parts[4:]))) is None:
            self._error(404, "EntryNotFound")
        else:
            etag = f'"{hashlib.sha256(content).hexdigest()}"'
            self._answer(200, content, ETag=etag, X_Repo_Commit=_commit(files))


@contextmanager
def serving() -> Iterator[Hub]:
    """A hub at ``hub.url``."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()

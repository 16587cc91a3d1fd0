"""A local stand-in of the Hugging Face hub: the HTTP calls that its client makes to create a
repository, upload a folder (small files in the commit, tensors by the LFS protocol) and download a
snapshot. One branch, no history."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import constants


@dataclass
class Repository:
    private: bool
    files: dict[str, bytes] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    @property
    def sha(self) -> str:
        return hashlib.sha1(repr(sorted(self.files.items())).encode()).hexdigest()


@dataclass
class Hub:
    """token: what may write, and read what is private. refuse: answer every call so."""

    url: str = ""
    token: str = "hf_right"
    refuse: int | None = None
    repositories: dict[str, Repository] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)


@contextmanager
def running() -> Iterator[Hub]:
    hub = Hub()

    class Handler(_Handler):
        state = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def in_place(monkeypatch: pytest.MonkeyPatch, cache: Path) -> Iterator[Hub]:
    """Running where the client looks for the hub, with a cache of its own."""
    with running() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", hub.token)
        yield hub


class _Handler(BaseHTTPRequestHandler):
    state: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def _answer(self, code: int, body: Any = None, **headers: str) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(content)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _serve(self) -> None:
        path = unquote(urlsplit(self.path).path).strip("/")
        self.state.calls.append(f"{self.command} {path}")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        known = self.headers.get("Authorization") == f"Bearer {self.state.token}"
        if self.state.refuse:
            self._answer(self.state.refuse, {"error": "the stand-in refuses"})
        elif self.command == "PUT":  # the address that an LFS batch gave
            self.state.objects[path.rpartition("/")[2]] = body
            self._answer(200, {})
        elif self.command == "POST" and not known:
            self._answer(401, {"error": "Invalid username or password."})
        elif self.command == "POST":
            self._post(path, body)
        else:
            self._get(path, known)

    do_GET = do_HEAD = do_POST = do_PUT = _serve  # noqa: N815

    def _post(self, path: str, body: bytes) -> None:
        state = self.state
        if path == "api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            private = asked.get("visibility") == "private" or bool(asked.get("private"))
            there = name in state.repositories
            state.repositories.setdefault(name, Repository(private))
            self._answer(409 if there else 200, {"url": f"{state.url}/{name}"})
        elif path == "api/validate-yaml":
            self._answer(200, {"errors": [], "warnings": []})
        elif path.endswith(".git/info/lfs/objects/batch"):
            objects = json.loads(body)["objects"]
            for one in objects:
                if one["oid"] not in state.objects:
                    one["actions"] = {"upload": {"href": f"{state.url}/lfs/{one['oid']}"}}
            self._answer(200, {"objects": objects, "transfer": "basic"})
        else:
            _, _, user, name, action, _ = path.split("/")
            repository = state.repositories[f"{user}/{name}"]
            if action == "preupload":
                files = [
                    {
                        "path": f["path"],
                        "uploadMode": "lfs" if f["path"].endswith(".safetensors") else "regular",
                        "shouldIgnore": False,
                    }
                    for f in json.loads(body)["files"]
                ]
                self._answer(200, {"files": files})
            else:
                assert action == "commit"
                for line in body.splitlines():
                    self._commit(repository, **json.loads(line))
                address = f"{state.url}/{user}/{name}/commit/{repository.sha}"
                self._answer(200, {"commitUrl": address, "commitOid": repository.sha})

    def _commit(self, repository: Repository, key: str, value: dict[str, Any]) -> None:
        if key == "header":
            repository.messages.append(value["summary"])
        elif key == "deletedFile":
            del repository.files[value["path"]]
        elif key == "file":
            repository.files[value["path"]] = base64.b64decode(value["content"])
        else:
            content = self.state.objects[value["oid"]]
            assert hashlib.sha256(content).hexdigest() == value["oid"]
            repository.files[value["path"]] = content

    def _get(self, path: str, known: bool) -> None:
        parts = path.split("/")
        name = "/".join(parts[2:4] if parts[0] == "api" else parts[:2])
        repository = self.state.repositories.get(name)
        if repository is None or (repository.private and not known):
            self._answer(404, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")
            return
        at = parts[5] if parts[0] == "api" and len(parts) > 5 else "main"
        if at not in ("main", repository.sha):
            self._answer(404, {"error": "Invalid rev"}, X_Error_Code="RevisionNotFound")
        elif parts[0] != "api":  # user/name/resolve/sha/file
            content = repository.files["/".join(parts[4:])]
            etag = hashlib.sha256(content).hexdigest()
            self._answer(200, content, ETag=f'"{etag}"', X_Repo_Commit=repository.sha)
        elif len(parts) > 4 and parts[4] == "tree":
            listing = [
                {"type": "file", "path": p, "size": len(c), "oid": hashlib.sha1(c).hexdigest()}
                for p, c in repository.files.items()
            ]
            self._answer(200, listing)
        else:
            self._answer(200, {"id": name, "sha": repository.sha, "private": repository.private})

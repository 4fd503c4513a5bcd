"""A hub on this machine: the routes of the Hugging Face Hub that downloads use, and what can go wrong there.

Routes and headers are those of https://huggingface.co: the listing of a revision, its tree, and files with their commit
and ETag.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import constants

_API = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+)/(?P<what>revision|tree)/(?P<revision>[^/]+)(/.*)?")
_MAIN = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+)")
_FILE = re.compile(r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<name>.+)")


@dataclass
class Repository:
    """Files by name, at one commit; ``refuses`` answers requests for files, or all, with a status and error code."""

    files: dict[str, bytes]
    revisions: tuple[str, ...] = ("main",)
    refuses_files: tuple[int, str] | None = None
    refuses_all: tuple[int, str] | None = None
    cut: str | None = None

    @property
    def commit(self) -> str:
        return hashlib.sha1(repr(sorted((name, _etag(data)) for name, data in self.files.items())).encode()).hexdigest()


@dataclass
class Hub:
    """The server: what it has, and what it was asked for."""

    repositories: dict[str, Repository] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)
    address: str = ""

    def add(self, repo: str, folder: Path, **options: object) -> Repository:
        """Offer the files of a folder."""
        names = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in names}
        self.repositories[repo] = Repository(files, **options)  # type: ignore[arg-type]
        return self.repositories[repo]

    def downloaded(self) -> set[str]:
        """Names of the files that were sent."""
        return {found["name"] for method, path in self.asked if method == "GET" and (found := _FILE.fullmatch(path))}


@contextmanager
def hub_stand_in() -> Iterator[Hub]:
    """Serve a hub on a free port of this machine."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    server.daemon_threads = True
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def use_hub(monkeypatch: pytest.MonkeyPatch, address: str, cache: Path, *, offline: bool = False) -> None:
    """Let this process's hub library ask a stand-in, and keep what it gets in a folder of the test."""
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(cache / "token"))
    monkeypatch.delenv("HF_TOKEN", raising=False)


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(body=True)

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def log_message(self, *args: object) -> None:
            pass

        def _answer(self, *, body: bool) -> None:
            path = unquote(urlsplit(self.path).path)
            hub.asked.append((self.command, path))
            hub.tokens.add(self.headers.get("Authorization", ""))
            found = _API.fullmatch(path) or _FILE.fullmatch(path) or _MAIN.fullmatch(path)
            named = found.groupdict() if found else {}
            repository = hub.repositories.get(named.get("repo", ""))
            revision = named.get("revision", "main")
            if repository is None:
                return self._refuse(401, "RepoNotFound")
            refusal = repository.refuses_all or (repository.refuses_files if "name" in named else None)
            if refusal:
                return self._refuse(*refusal)
            if revision not in (*repository.revisions, repository.commit):
                return self._refuse(404, "RevisionNotFound")
            if "name" in named:
                return self._file(repository, named["name"], body)
            return self._json(_tree(repository) if named.get("what") == "tree" else _listing(named["repo"], repository))

        def _refuse(self, status: int, code: str) -> None:
            self._send(status, b"", {"X-Error-Code": code} if code else {}, body=True)

        def _json(self, value: object) -> None:
            self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"}, body=True)

        def _file(self, repository: Repository, name: str, body: bool) -> None:
            if name not in repository.files:
                return self._refuse(404, "EntryNotFound")
            data = repository.files[name]
            headers = {"X-Repo-Commit": repository.commit, "ETag": f'"{_etag(data)}"', "Accept-Ranges": "bytes"}
            begin = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            if begin:
                start = int(begin[1])
                headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
                return self._send(206, data[start:], headers, body=body)
            if body and repository.cut == name:
                return self._send(200, data, headers, body=True, sent=len(data) // 2)
            return self._send(200, data, headers, body=body)

        def _send(
            self, status: int, data: bytes, headers: dict[str, str], *, body: bool, sent: int | None = None
        ) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("Connection", "close")  # a kept one would go on answering after the end
            self.end_headers()
            if body and self.command == "GET":
                self.wfile.write(data[:sent])

    return Handler


def _listing(repo: str, repository: Repository) -> dict[str, object]:
    siblings = [{"rfilename": name, "size": len(data)} for name, data in repository.files.items()]
    return {"id": repo, "sha": repository.commit, "private": False, "tags": [], "siblings": siblings}


def _tree(repository: Repository) -> list[dict[str, object]]:
    return [
        {"type": "file", "path": name, "size": len(data), "oid": _etag(data)} for name, data in repository.files.items()
    ]


def _etag(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()

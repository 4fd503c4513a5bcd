"""A hub on this machine, for the real client: the routes of the Hugging Face Hub's HTTP API that are used here.

Routes, headers and answers are those of https://huggingface.co: who asks, listings and trees of models and data sets,
files with commit, ETag and ranges, and all that an upload takes (create, preupload, LFS batch, PUT, verify, commit). It
keeps what it gets. What can go wrong is said by ``Fault``.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
import yaml
from huggingface_hub import constants

TOKEN = "hf_TheTokenOfSomeone"
USER = "someone"
_LFS_BYTES = 1000
_LFS_ENDINGS = (".safetensors", ".png", ".jpg", ".parquet")


@dataclass
class Fault:
    """What goes wrong with requests.

    Attributes:
        path: expression that the request's path has to match as a whole.
        method: GET, HEAD, POST or PUT; empty for any.
        status: answered in place of what was asked for; 0 for none.
        headers: sent with it, such as ``Retry-After``.
        cut: bytes of the body, the client's of a PUT and else the server's, after which the connection is dropped.
        times: how often.
    """

    path: str
    method: str = ""
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None
    times: int = 1


@dataclass
class Repository:
    """Files by name, at one commit; ``refuses`` answers requests for files, or all, with a status and error code."""

    files: dict[str, bytes]
    revisions: tuple[str, ...] = ("main",)
    refuses_files: tuple[int, str] | None = None
    refuses_all: tuple[int, str] | None = None
    cut: str | None = None
    private: bool = False
    messages: list[str] = field(default_factory=list)

    @property
    def commit(self) -> str:
        return hashlib.sha1(repr(sorted((name, _etag(data)) for name, data in self.files.items())).encode()).hexdigest()

    @property
    def card(self) -> dict[str, Any]:
        """The settings in front of README.md; empty where they cannot be read."""
        try:
            known = front_matter(self.files.get("README.md", b"").decode("utf-8", "replace"))
        except yaml.YAMLError:
            return {}
        return known if isinstance(known, dict) else {}


@dataclass
class Hub:
    """The server: what it has, and what it was asked for.

    Attributes:
        repositories: models by ``owner/name``; data sets by ``datasets/owner/name``.
        users: names by token.
        blobs: what was uploaded, by SHA-256.
        asked: method and path of each request.
        received: bytes of uploads that came, those of broken ones too, by SHA-256.
    """

    repositories: dict[str, Repository] = field(default_factory=dict)
    users: dict[str, str] = field(default_factory=lambda: {TOKEN: USER})
    blobs: dict[str, bytes] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    asked: list[tuple[str, str]] = field(default_factory=list)
    ranges: list[str] = field(default_factory=list)
    received: dict[str, int] = field(default_factory=dict)
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

    def fault_of(self, method: str, path: str) -> Fault | None:
        """What goes wrong with this request."""
        for fault in self.faults:
            if fault.times > 0 and fault.method in ("", method) and re.fullmatch(fault.path, path):
                fault.times -= 1
                return fault
        return None


@contextmanager
def hub_server() -> Iterator[Hub]:
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
    """Let this process's hub library ask a server, and keep what it gets in a folder of the test."""
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(cache / "token"))
    monkeypatch.delenv("HF_TOKEN", raising=False)


def hub_environment(hub: Hub, home: Path, token: str | None = TOKEN) -> dict[str, str]:
    """Variables that let other processes use the server, with a cache of their own."""
    online = {"HF_ENDPOINT": hub.address, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0"}
    return online | ({"HF_TOKEN": token} if token else {})


def front_matter(readme: str) -> dict[str, Any]:
    """The YAML between the first two lines of dashes; empty where there is none."""
    found = re.match(r"---\n(.*?)\n---\n", readme, re.DOTALL)
    return yaml.safe_load(found[1]) if found else {}


_REPO = r"(?P<repo>[^/]+/[^/]+)"
_KIND = r"/api/(?P<kind>models|datasets)/"
_FILE = re.compile(rf"/(?P<dataset>datasets/)?{_REPO}/resolve/(?P<revision>[^/]+)/(?P<name>.+)")
_ROUTES: list[tuple[str, re.Pattern[str], str]] = [
    ("GET", re.compile(r"/api/whoami-v2"), "whoami"),
    ("POST", re.compile(r"/api/repos/create"), "create"),
    ("POST", re.compile(r"/api/validate-yaml"), "validate"),
    ("POST", re.compile(rf"{_KIND}{_REPO}/preupload/(?P<revision>[^/]+)"), "preupload"),
    ("POST", re.compile(rf"{_KIND}{_REPO}/commit/(?P<revision>[^/]+)"), "commit"),
    ("POST", re.compile(rf"{_KIND}{_REPO}/paths-info/(?P<revision>[^/]+)"), "paths"),
    ("POST", re.compile(rf"/{_REPO}\.git/info/lfs/objects/batch"), "batch"),
    ("POST", re.compile(r"/lfs/verify"), "verify"),
    ("PUT", re.compile(r"/lfs/(?P<oid>[0-9a-f]{64})"), "put"),
    ("GET", re.compile(rf"{_KIND}{_REPO}/tree/(?P<revision>[^/]+)(/(?P<folder>.*))?"), "tree"),
    ("GET", re.compile(rf"{_KIND}{_REPO}/revision/(?P<revision>[^/]+)"), "listing"),
    ("GET", re.compile(rf"{_KIND}{_REPO}"), "listing"),
    ("GET", _FILE, "file"),
    ("HEAD", _FILE, "file"),
]


class _Refusal(Exception):
    """An answer that ends the request."""

    def __init__(self, status: int, code: str = "", message: str = "") -> None:
        self.status, self.code, self.message = status, code, message


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(_Handler):
        pass

    Handler.hub = hub
    return Handler


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append((self.command, path))
        self.hub.tokens.add(self.headers.get("Authorization", ""))
        if self.headers.get("Range"):
            self.hub.ranges.append(self.headers["Range"])
        self._fault = self.hub.fault_of(self.command, path)
        length = int(self.headers.get("Content-Length", 0))
        cut = self._fault.cut if self._fault and self.command in ("PUT", "POST") else None
        self._body = self.rfile.read(length if cut is None else min(cut, length))
        if self.command == "PUT":
            oid = path.rpartition("/")[2]
            self.hub.received[oid] = self.hub.received.get(oid, 0) + len(self._body)
        if cut is not None:
            self.close_connection = True
            return
        try:
            self._answer(path)
        except _Refusal as refusal:
            headers = {"X-Error-Code": refusal.code} if refusal.code else {}
            headers |= {"X-Error-Message": refusal.message} if refusal.message else {}
            self._send(refusal.status, b"", headers)

    do_HEAD = do_POST = do_PUT = do_GET

    def log_message(self, *args: object) -> None:
        pass

    def _answer(self, path: str) -> None:
        if self._fault and self._fault.status:
            return self._send(self._fault.status, b"", self._fault.headers)
        for method, pattern, name in _ROUTES:
            found = pattern.fullmatch(path)
            if found and method == self.command:
                answer: Callable[..., None] = getattr(self, f"_{name}")
                return answer(**found.groupdict())
        raise _Refusal(404, "EntryNotFound")

    # Who asks, and what it may

    def _user(self) -> str:
        user = self.hub.users.get(self.headers.get("Authorization", "").removeprefix("Bearer "))
        if user is None:
            raise _Refusal(401, message="Invalid credentials in Authorization header")
        return user

    def _whoami(self) -> None:
        self._json({"type": "user", "name": self._user(), "orgs": []})

    def _repository(self, repo: str, revision: str = "main") -> Repository:
        """One that this asker may read."""
        repository = self.hub.repositories.get(repo)
        sender = self._user() if self.headers.get("Authorization") else None
        if repository is None or (repository.private and sender != repo.split("/")[-2]):
            raise _Refusal(401, "RepoNotFound")
        if repository.refuses_all:
            raise _Refusal(*repository.refuses_all)
        if revision not in (*repository.revisions, repository.commit):
            raise _Refusal(404, "RevisionNotFound")
        return repository

    def _own(self, repo: str) -> Repository:
        """One that this asker may write."""
        user, repository = self._user(), self._repository(repo)
        if user != repo.split("/")[0]:
            raise _Refusal(403, message="You don't have the rights to write to this repository")
        return repository

    # Writing

    def _create(self) -> None:
        asked, user = json.loads(self._body), self._user()
        owner = asked.get("organization") or user
        repo = f"{owner}/{asked['name']}"
        url = {"url": f"{self.hub.address}/{repo}"}
        if owner != user:
            raise _Refusal(403, message="You don't have the rights to create a model under this namespace")
        if repo in self.hub.repositories:
            return self._json(url, 409)
        private = asked.get("visibility") == "private" or asked.get("private", False)
        self.hub.repositories[repo] = Repository({".gitattributes": b"*.safetensors lfs\n"}, private=private)
        return self._json(url)

    def _validate(self) -> None:
        try:
            known = front_matter(json.loads(self._body)["content"])
        except yaml.YAMLError as error:
            return self._json({"errors": [{"message": str(error)}], "warnings": []}, 400)
        warnings = [] if known else [{"message": "empty or missing yaml metadata in repo card"}]
        return self._json({"errors": [], "warnings": warnings})

    def _preupload(self, kind: str, repo: str, revision: str) -> None:
        repository, answers = self._own(repo), []
        for each in json.loads(self._body)["files"]:
            large = each["size"] >= _LFS_BYTES and each["path"].endswith(_LFS_ENDINGS)
            there = repository.files.get(each["path"])
            oid = None if there is None else hashlib.sha256(there).hexdigest() if large else _etag(there)
            mode = "lfs" if large else "regular"
            answers.append({"path": each["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self._json({"files": answers})

    def _batch(self, repo: str) -> None:
        self._own(repo)
        objects = []
        for each in json.loads(self._body)["objects"]:
            upload = {"href": f"{self.hub.address}/lfs/{each['oid']}"}
            verify = {"href": f"{self.hub.address}/lfs/verify"}
            missing = each["oid"] not in self.hub.blobs
            objects.append({**each, **({"actions": {"upload": upload, "verify": verify}} if missing else {})})
        self._json({"transfer": "basic", "objects": objects})

    def _put(self, oid: str) -> None:
        if hashlib.sha256(self._body).hexdigest() != oid:
            raise _Refusal(400, message="The content is not what was announced")
        self.hub.blobs[oid] = self._body
        self._send(200, b"", {"ETag": f'"{oid}"'})

    def _verify(self) -> None:
        asked = json.loads(self._body)
        if len(self.hub.blobs.get(asked["oid"], b"")) != asked["size"]:
            raise _Refusal(422)
        self._json({})

    def _commit(self, kind: str, repo: str, revision: str) -> None:
        repository = self._own(repo)
        files = dict(repository.files)
        for line in self._body.splitlines():
            operation = json.loads(line)
            value = operation["value"]
            if operation["key"] == "header":
                repository.messages.append(value["summary"])
            elif operation["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif operation["key"] == "lfsFile":
                if value["oid"] not in self.hub.blobs:
                    raise _Refusal(400, message="A file was not uploaded")
                files[value["path"]] = self.hub.blobs[value["oid"]]
            else:
                raise _Refusal(400, message=f"{operation['key']} is not known here")
        repository.files = files
        url = f"{self.hub.address}/{repo}/commit/{repository.commit}"
        self._json({"success": True, "commitOid": repository.commit, "commitUrl": url})

    # Reading

    def _listing(self, kind: str, repo: str, revision: str = "main") -> None:
        repo = repo if kind == "models" else f"datasets/{repo}"
        repository = self._repository(repo, revision)
        siblings = [{"rfilename": name, "size": len(data)} for name, data in repository.files.items()]
        about = {"id": repo.removeprefix("datasets/"), "sha": repository.commit, "private": repository.private}
        card = {"cardData": repository.card} if repository.card else {}
        self._json({**about, "tags": [], "siblings": siblings, **card})

    def _tree(self, kind: str, repo: str, revision: str, folder: str | None = None) -> None:
        repository = self._repository(repo if kind == "models" else f"datasets/{repo}", revision)
        prefix = f"{folder}/" if folder else ""
        deep = parse_qs(urlsplit(self.path).query).get("recursive", ["false"])[0].lower() in ("true", "1")
        files = {name: data for name, data in repository.files.items() if name.startswith(prefix)}
        parents = {str(parent) for name in files for parent in PurePosixPath(name).parents}
        folders = [each for each in sorted(parents - {"."}) if each.startswith(prefix)]
        entries = [_folder(each) for each in folders] + [_entry(name, data) for name, data in files.items()]
        direct = [each for each in entries if "/" not in str(each["path"]).removeprefix(prefix)]
        self._json(entries if deep else direct)

    def _paths(self, kind: str, repo: str, revision: str) -> None:
        repository = self._repository(repo if kind == "models" else f"datasets/{repo}", revision)
        asked = json.loads(self._body)["paths"]
        folders = {path for path in asked if any(name.startswith(f"{path}/") for name in repository.files)}
        found = [_entry(name, data) for name, data in repository.files.items() if name in asked]
        self._json([*found, *map(_folder, folders)])

    def _file(self, dataset: str | None, repo: str, revision: str, name: str) -> None:
        repository = self._repository(f"{dataset or ''}{repo}", revision)
        if repository.refuses_files:
            raise _Refusal(*repository.refuses_files)
        if name not in repository.files:
            raise _Refusal(404, "EntryNotFound")
        data = repository.files[name]
        headers = {"X-Repo-Commit": repository.commit, "ETag": f'"{_etag(data)}"', "Accept-Ranges": "bytes"}
        begin = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if begin:
            first, last = int(begin[1]), min(int(begin[2] or len(data) - 1), len(data) - 1)
            headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
            return self._send(206, data[first : last + 1], headers)
        cut = len(data) // 2 if repository.cut == name else self._fault.cut if self._fault else None
        return self._send(200, data, headers, cut)

    def _json(self, value: object, status: int = 200) -> None:
        self._send(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, data: bytes, headers: dict[str, str], cut: int | None = None) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Connection", "close")  # a kept one would go on answering after the end
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[:cut])


def _entry(name: str, data: bytes) -> dict[str, object]:
    return {"type": "file", "path": name, "size": len(data), "oid": _etag(data)}


def _folder(path: str) -> dict[str, object]:
    return {"type": "directory", "path": path, "size": 0, "oid": "0" * 40}


def _etag(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()

"""The running app to attack: with an ear on it, secrets beside its workspace, and every route it serves."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.running_app import end_app, free_port, start_app
from tests.unit.queue_trainer import wait

SECRET = "TOP-SECRET-CANARY"
WATCHED_APP = Path(__file__).with_name("watched_app.py")


@dataclass
class Attacked:
    """An app in a process of its own. Beside its workspace lies a folder that nobody allowed, full of secrets."""

    root: Path
    port: int
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def workspace(self) -> Path:
        return self.root / "workspace"

    @property
    def outside(self) -> Path:
        return self.root / "outside"

    @property
    def log(self) -> str:
        return (self.workspace / "app.log").read_text(encoding="utf-8")

    def routes(self) -> list[tuple[str, list[str]]]:
        """Every address that is served, its parameters filled in, with its methods."""
        told = json.loads((self.root / "told" / "routes.json").read_text(encoding="utf-8"))
        return [(re.sub(r"\{[^}]*\}", "1", path), methods) for path, methods in told]

    def touched(self) -> list[str]:
        """What the app touched outside of its workspace."""
        return (self.root / "told" / "touched.log").read_text(encoding="utf-8").splitlines()

    def started(self) -> list[str]:
        """The processes that the app wanted to start; none did."""
        return (self.root / "told" / "started.log").read_text(encoding="utf-8").splitlines()

    def state_outside(self) -> dict[str, tuple[bytes, int]]:
        """Contents and times of the files that must stay as they are."""
        files = [path for path in sorted(self.outside.rglob("*")) if path.is_file()]
        return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}

    def state_inside(self) -> dict[str, tuple[int, int]]:
        """Sizes and times of the workspace's files, without logs."""
        files = [path for path in sorted(self.workspace.rglob("*")) if path.is_file() and path.suffix != ".log"]
        return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in files}


Starter = Callable[..., Attacked]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Starter]:
    """``start("--auth-file", "F")`` starts an app; it ends with the test file."""
    running = []

    def started(*options: str) -> Attacked:
        root = tmp_path_factory.mktemp("attacked").resolve()
        for name in ("workspace", "outside", "told"):
            (root / name).mkdir()
        for name in ("secret.txt", "secret.yaml", "secret.json", "secret.png", "secret.safetensors", "config.yaml"):
            (root / "outside" / name).write_text(SECRET, encoding="utf-8")
        port = free_port()
        program = [str(WATCHED_APP), str(root / "told"), str(root / "outside")]
        running.append(Attacked(root, port, start_app(root / "workspace", port, options, program)))
        wait((root / "told" / "routes.json").is_file)  # it answers before it has told them
        return running[-1]

    yield started
    for each in running:
        end_app(each.process, each.workspace)


@pytest.fixture(scope="module")
def attacked(start: Starter) -> Attacked:
    """The app as it starts without options: no password, this machine only."""
    return start()


@pytest.fixture(scope="module")
def client(attacked: Attacked) -> Iterator[httpx.Client]:
    """Somebody who reaches the app's port. Each request has its own connection: after an error the server ends it."""
    with httpx.Client(base_url=attacked.url, timeout=120, headers={"connection": "close"}) as open_client:
        yield open_client

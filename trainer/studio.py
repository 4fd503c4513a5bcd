"""The studio's client: picture requests to the process that keeps a model loaded. Never imports torch.

Requests and answers are files, so that they survive the page, the app and the studio itself::

    WORKSPACE/studio/studio.json            what the process holds
    WORKSPACE/studio/requests/<id>.json     waiting, removed when the answer is final
    WORKSPACE/studio/requests/<id>.cancel   asks for an end of that request
    WORKSPACE/studio/answers/<id>.json      state, progress, pictures or error
    WORKSPACE/studio/previews/              pictures of preview requests; others go to WORKSPACE/pictures

Of ``preview`` requests only the newest counts: older ones end as cancelled, at their next denoising step if need be.
``generate`` requests are answered in order.
"""

from __future__ import annotations

import os
import secrets
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import psutil
from filelock import FileLock
from pydantic import BaseModel, ConfigDict, ValidationError

from trainer.errors import UserError
from trainer.files import read_json, write_json, write_text
from trainer.pictures import PictureSettings
from trainer.processes import start_detached, started_at, trainer_command
from trainer.runs.store import Workspace, process_is_alive

Kind = Literal["generate", "preview"]
StudioState = Literal["off", "starting", "loading", "ready", "drawing"]
FINAL = ("done", "cancelled", "failed")


class Request(BaseModel):
    """One request. ``compare`` asks for the same picture without LoRAs first."""

    model_config = ConfigDict(extra="forbid")

    id: str
    kind: Kind
    settings: PictureSettings
    compare: bool = False
    created: float


class Answer(BaseModel):
    """What became of a request so far. Steps count over all its pictures; times are Unix seconds."""

    id: str
    state: Literal["waiting", "running", "done", "cancelled", "failed"] = "waiting"
    what: str = ""
    """What is going on, in words: ``loading the model``."""
    step: int = 0
    steps: int = 0
    pictures: list[str] = []
    error: list[dict[str, str]] = []
    """Problems as in ``trainer.errors.Problem``."""
    attempts: int = 0
    started: float | None = None
    ended: float | None = None

    @property
    def final(self) -> bool:
        return self.state in FINAL


class StudioInfo(BaseModel):
    """``studio.json``: what the process is and holds."""

    pid: int | None = None
    pid_started: float | None = None
    state: StudioState = "off"
    model: str | None = None
    device: str | None = None
    loras: list[str] = []
    since: float | None = None


@dataclass(frozen=True)
class Studio:
    """The studio of a workspace. Any number of these may be made, in any process."""

    workspace: Workspace
    idle_minutes: float
    """How long an unused studio stays, given to the process when it is started."""

    @property
    def dir(self) -> Path:
        return self.workspace.dir / "studio"

    @property
    def requests_dir(self) -> Path:
        return self.dir / "requests"

    @property
    def answers_dir(self) -> Path:
        return self.dir / "answers"

    @property
    def previews_dir(self) -> Path:
        return self.dir / "previews"

    @property
    def info_path(self) -> Path:
        return self.dir / "studio.json"

    @property
    def log_path(self) -> Path:
        return self.dir / "studio.log"

    def preview(self, settings: PictureSettings, *, compare: bool = False) -> str:
        """Ask for one picture in place of every earlier preview; returns the request's id."""
        return self._request("preview", settings.model_copy(update={"count": 1}), compare=compare)

    def generate(self, settings: PictureSettings) -> str:
        """Ask for pictures, after those asked for before; returns the request's id."""
        return self._request("generate", settings, compare=False)

    def answer(self, request_id: str) -> Answer:
        """What became of a request. A studio that died meanwhile is started again. Raises UserError for a wrong id."""
        answer = read_answer(self.answers_dir, request_id)
        if answer.final:
            return answer
        if not (self.requests_dir / f"{request_id}.json").exists():
            answer = read_answer(self.answers_dir, request_id)
            if answer.final:
                return answer
            raise UserError("studio.unknown", f"There is no picture request {request_id}.", "Ask for it again.")
        self.ensure()
        return answer

    def wait(self, request_id: str, timeout_s: float) -> Answer:
        """The answer once it is final, or as it stands after ``timeout_s``."""
        end = time.monotonic() + timeout_s
        while not (answer := self.answer(request_id)).final and time.monotonic() < end:
            time.sleep(0.05)
        return answer

    def cancel(self, request_id: str) -> None:
        """Ask for an end of a request; its answer says when that has happened."""
        if (self.requests_dir / f"{_checked(request_id)}.json").exists():
            write_text(self.requests_dir / f"{request_id}.cancel", "")

    def pending(self) -> list[Request]:
        """The requests without a final answer, oldest first."""
        return [request for path in request_paths(self.requests_dir) if (request := read_request(path)) is not None]

    def info(self) -> StudioInfo:
        """What the studio holds; state ``off`` where no process lives."""
        try:
            info = StudioInfo.model_validate(read_json(self.info_path))
        except (OSError, ValueError):
            return StudioInfo()
        return info if process_is_alive(info.pid, info.pid_started) else StudioInfo()

    def ensure(self) -> None:
        """Start the studio's process where none lives, in a session of its own, so that it outlives the app."""
        if self.info().state != "off":
            return
        with FileLock(self._locks_dir() / "studio-start.lock", timeout=30):
            if self.info().state == "off":
                self._start()

    def let_go(self) -> None:
        """End the studio's process and give back its memory. Requests still waiting start it again."""
        info = self.info()
        if info.pid is None:
            return
        try:
            process = psutil.Process(info.pid)
            process.terminate()
            process.wait(timeout=20)
        except psutil.NoSuchProcess:
            return
        except psutil.TimeoutExpired:
            process.kill()

    def _request(self, kind: Kind, settings: PictureSettings, *, compare: bool) -> str:
        request_id = f"{time.time_ns():020d}-{kind}-{secrets.token_hex(3)}"
        request = Request(id=request_id, kind=kind, settings=settings, compare=compare, created=time.time())
        write_json(self.requests_dir / f"{request_id}.json", request.model_dump())
        self.ensure()
        return request_id

    def _start(self) -> None:
        arguments = ["--workspace", str(self.workspace.dir), "--idle-minutes", str(self.idle_minutes)]
        # threads that wait by spinning make a picture take ten times as long while a training run uses the same cores
        environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ}
        process = start_detached(trainer_command("studio", *arguments), self.log_path, env=environment)
        info = StudioInfo(pid=process.pid, pid_started=started_at(process.pid), state="starting", since=time.time())
        write_json(self.info_path, info.model_dump())

    def _locks_dir(self) -> Path:
        self.workspace.locks_dir.mkdir(parents=True, exist_ok=True)
        return self.workspace.locks_dir


def request_paths(requests_dir: Path) -> list[Path]:
    """The request files, oldest first: their names begin with the time."""
    return sorted(requests_dir.glob("*.json"))


def read_request(path: Path) -> Request | None:
    """A request, or None where the file is gone or is not one."""
    try:
        request = Request.model_validate(read_json(path))
    except (OSError, ValueError, ValidationError):
        return None
    return request if request.id == path.stem else None


def read_answer(answers_dir: Path, request_id: str) -> Answer:
    """The answer so far, ``waiting`` where there is none yet. Raises UserError for an id that is none."""
    try:
        return Answer.model_validate(read_json(answers_dir / f"{_checked(request_id)}.json"))
    except FileNotFoundError:
        return Answer(id=request_id)


def _checked(request_id: Any) -> str:
    """An id cannot lead out of its folder."""
    if not isinstance(request_id, str) or not request_id.replace("-", "").isalnum():
        raise UserError("studio.unknown", f"{request_id!r} is not a picture request.", "Ask for it again.")
    return request_id

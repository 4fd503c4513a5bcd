"""The studio's client: picture requests to the process that keeps a model loaded. Never imports torch.

Requests and answers are files, so that they survive the page, the app and the studio itself::

    WORKSPACE/studio/studio.json            what the process holds
    WORKSPACE/studio/requests/<id>.json     waiting, removed when the answer is final
    WORKSPACE/studio/requests/<id>.cancel   asks for an end of that request
    WORKSPACE/studio/requests/<id>.first    asks for it before the other waiting ones
    WORKSPACE/studio/answers/<id>.json      state, progress, pictures or error
    WORKSPACE/studio/previews/              pictures of preview requests; others go to WORKSPACE/pictures
    WORKSPACE/studio/live/<id>.jpg          the picture that is being drawn, until it is done

Of ``preview`` requests only the newest counts: older ones end as cancelled, at their next denoising step if need be.
``generate`` requests are answered in order, ``grid`` requests (``trainer/grids``) after all others; between two
pictures of one, whatever is more urgent is answered first.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import psutil
from filelock import FileLock
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trainer.config_io import problems_of
from trainer.errors import UserError
from trainer.files import read_json, write_json, write_text
from trainer.pictures import PictureSettings
from trainer.processes import process_facts, start_detached, trainer_command
from trainer.runs.store import Workspace, process_is_alive

Kind = Literal["generate", "preview", "grid"]
StudioState = Literal["off", "starting", "loading", "ready", "drawing"]
FINAL = ("done", "cancelled", "failed")
MOST_PROMPTS = 8
"""That one preview may have."""


class Request(BaseModel):
    """One request. ``compare`` asks for the same picture without LoRAs first, for each prompt."""

    model_config = ConfigDict(extra="forbid")

    id: str
    kind: Kind
    settings: PictureSettings
    prompts: list[str] = Field(default=[], max_length=MOST_PROMPTS - 1)
    """Further prompts of a preview, beside that of its settings."""
    compare: bool = False
    grid: str = ""
    """Id of the grid whose missing cells are asked for."""
    created: float

    @property
    def looks(self) -> list[PictureSettings]:
        """The settings of each picture to draw, comparisons left out: by prompt, or by seed."""
        if self.kind == "preview":
            return [self.settings.model_copy(update={"prompt": p}) for p in (self.settings.prompt, *self.prompts)]
        seeds = range(self.settings.seed, self.settings.seed + self.settings.count)
        return [self.settings.model_copy(update={"seed": seed, "count": 1}) for seed in seeds]


class Answer(BaseModel):
    """What became of a request so far. Steps count over all its pictures, or one of a grid; times are Unix seconds."""

    id: str
    state: Literal["waiting", "running", "done", "cancelled", "failed"] = "waiting"
    what: str = ""
    """What is going on, in words: ``loading the model``."""
    step: int = 0
    steps: int = 0
    pictures: list[str] = []
    """Those that are done; of a comparison without and with LoRAs in turn, prompt by prompt."""
    live: str = ""
    """A small JPEG of the picture being drawn, written anew as it goes; empty where there is none yet."""
    notes: list[str] = []
    """What was done so that the pictures fit the memory, in words."""
    error: list[dict[str, str]] = []
    """Problems as in ``trainer.errors.Problem``."""
    attempts: int = 0
    started: float | None = None
    ended: float | None = None

    @property
    def final(self) -> bool:
        return self.state in FINAL


class Queued(NamedTuple):
    """A request without a final answer, and how it stands."""

    request: Request
    answer: Answer


class StudioInfo(BaseModel):
    """``studio.json``: what the process is and holds."""

    pid: int | None = None
    pid_started: float | None = None
    pid_mark: int | None = None
    state: StudioState = "off"
    model: str | None = None
    device: str | None = None
    loras: list[str] = []
    memory_bytes: int | None = None
    """Of the GPU, or of the machine where there is none."""
    savers: list[str] = []
    """What is done to save memory, in words."""
    replays: str = ""
    """How the denoiser is captured for sizes that are drawn again, or why not, in words; nothing where no GPU draws."""
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
    def live_dir(self) -> Path:
        return self.dir / "live"

    def live_path(self, request_id: str) -> Path:
        """Where the picture that is being drawn for a request is shown."""
        return self.live_dir / f"{request_id}.jpg"

    @property
    def info_path(self) -> Path:
        return self.dir / "studio.json"

    @property
    def log_path(self) -> Path:
        return self.dir / "studio.log"

    def preview(self, settings: PictureSettings, *, prompts: Sequence[str] = (), compare: bool = False) -> str:
        """Ask for one picture, and one for each further prompt, in place of every earlier preview; returns the id."""
        only = settings.model_copy(update={"count": 1})
        return self._request("preview", settings=only, prompts=list(prompts), compare=compare)

    def generate(self, settings: PictureSettings) -> str:
        """Ask for pictures, after those asked for before; returns the request's id."""
        return self._request("generate", settings=settings)

    def draw_grid(self, grid: str, base: PictureSettings) -> str:
        """Ask for the missing cells of a grid, after all other pictures; returns the request's id."""
        return self._request("grid", settings=base, grid=grid)

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

    def cancel(self, request_id: str) -> None:
        """Ask for an end of a request; its answer says when that has happened."""
        if (self.requests_dir / f"{_checked(request_id)}.json").exists():
            write_text(self.requests_dir / f"{request_id}.cancel", "")

    def move_to_front(self, request_id: str) -> None:
        """Let a waiting request be the next one, after the picture that is being drawn."""
        if (self.requests_dir / f"{_checked(request_id)}.json").exists():
            write_text(self.requests_dir / f"{request_id}.first", "")

    def queue(self) -> list[Queued]:
        """The requests that are or will be drawn, in the order in which they are answered."""
        requests = [request for path in waiting_paths(self.requests_dir) if (request := read_request(path)) is not None]
        queued = [Queued(request, read_answer(self.answers_dir, request.id)) for request in requests]
        return [each for each in queued if each.answer.state == "running" or not self._is_cancelled(each.request.id)]

    def pending(self) -> list[Request]:
        """The requests without a final answer, oldest first."""
        return [request for path in request_paths(self.requests_dir) if (request := read_request(path)) is not None]

    def info(self) -> StudioInfo:
        """What the studio holds; state ``off`` where no process lives."""
        try:
            info = StudioInfo.model_validate(read_json(self.info_path))
        except (OSError, ValueError):
            return StudioInfo()
        return info if process_is_alive(info.pid, info.pid_started, info.pid_mark) else StudioInfo()

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

    def _is_cancelled(self, request_id: str) -> bool:
        """Whether an end was asked for, which the process answers when it comes to it."""
        return (self.requests_dir / f"{request_id}.cancel").exists()

    def _request(self, kind: Kind, **asked: Any) -> str:
        request_id = f"{time.time_ns():020d}-{kind}-{secrets.token_hex(3)}"
        request = Request(id=request_id, kind=kind, created=time.time(), **asked)
        write_json(self.requests_dir / f"{request_id}.json", request.model_dump())
        self.ensure()
        return request_id

    def _start(self) -> None:
        arguments = ["--workspace", str(self.workspace.dir), "--idle-minutes", str(self.idle_minutes)]
        # threads that wait by spinning make a picture take ten times as long while a training run uses the same cores
        environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ}
        process = start_detached(trainer_command("studio", *arguments), self.log_path, env=environment)
        info = StudioInfo(**process_facts(process.pid), state="starting", since=time.time())
        write_json(self.info_path, info.model_dump())

    def _locks_dir(self) -> Path:
        self.workspace.locks_dir.mkdir(parents=True, exist_ok=True)
        return self.workspace.locks_dir


def request_paths(requests_dir: Path) -> list[Path]:
    """The request files, oldest first: their names begin with the time. Files of other names are none."""
    return sorted(path for path in requests_dir.glob("*.json") if _is_id(path.stem))


def waiting_paths(requests_dir: Path) -> list[Path]:
    """The request files, most urgent first: previews, newest first; those moved to the front, last moved first; others.

    Of the others grids come last. Of which kind it is a request's name says.
    """
    paths = request_paths(requests_dir)
    previews = [path for path in reversed(paths) if is_preview(path)]
    others = sorted((path for path in paths if not is_preview(path)), key=lambda path: "-grid-" in path.name)
    return previews + sorted(others, key=_moved_ns, reverse=True)


def is_preview(path: Path) -> bool:
    """Whether a request file asks for a preview."""
    return "-preview-" in path.name


def _moved_ns(path: Path) -> int:
    """When a request was moved to the front, 0 where it was not."""
    try:
        return path.with_suffix(".first").stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def read_request(path: Path) -> Request | None:
    """A request, or None where the file is gone or is not one."""
    try:
        return checked_request(path)
    except UserError:
        return None


def checked_request(path: Path) -> Request:
    """A request. Raises UserError with each wrong value, or where there is no request at all in the file."""
    try:
        values = read_json(path)
        request = Request.model_validate(values)
    except ValidationError as error:
        raise UserError.many(problems_of(error, values)) from error
    except (OSError, ValueError, RecursionError) as error:
        raise _unreadable() from error
    if request.id != path.stem:
        raise _unreadable()
    return request


def read_answer(answers_dir: Path, request_id: str) -> Answer:
    """The answer so far, ``waiting`` where none can be read. Raises UserError for an id that is none."""
    try:
        return Answer.model_validate(read_json(answers_dir / f"{_checked(request_id)}.json"))
    except (FileNotFoundError, ValueError):
        return Answer(id=request_id)


def write_answer(answers_dir: Path, answer: Answer, *, durable: bool = True) -> None:
    """Tell how a request stands; what only says how far it is need not be ``durable``."""
    write_json(answers_dir / f"{answer.id}.json", answer.model_dump(), durable=durable)


def _checked(request_id: Any) -> str:
    """An id cannot lead out of its folder."""
    if not isinstance(request_id, str) or not _is_id(request_id):
        raise UserError("studio.unknown", f"{request_id!r} is not a picture request.", "Ask for it again.")
    return request_id


def _is_id(text: str) -> bool:
    return text.isascii() and text.replace("-", "").isalnum()


def _unreadable() -> UserError:
    return UserError("studio.request", "The picture request cannot be read.", "Ask for the picture again.")

"""The studio's process: keeps one model loaded and answers the picture requests of ``trainer/studio.py``."""

from __future__ import annotations

import gc
import time
import traceback
from collections import OrderedDict
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from PIL import Image

from trainer.devices import gpu_uuid
from trainer.errors import Problem, UserError
from trainer.files import write_json
from trainer.generate import OnStep, Painter, Progress, check_files, save_picture
from trainer.pictures import save_png
from trainer.runs.store import this_process
from trainer.runs.turns import Holder, busy_words, gpu_turn
from trainer.studio import Answer, Request, Studio, StudioInfo, StudioState, read_answer, read_request, request_paths

KEPT_PREVIEWS = 20
KEPT_ANSWERS = 500
MAX_ATTEMPTS = 3
"""A request that took the process down this often is given up."""
PROGRESS_EVERY_S = 0.2


class _Cancelled(Exception):
    """Nobody waits for this picture any more."""


def serve(studio: Studio, device: torch.device) -> bool:
    """Answer requests until idle for too long. Returns False when another process is this workspace's studio."""
    studio.workspace.locks_dir.mkdir(parents=True, exist_ok=True)
    lock = FileLock(studio.workspace.locks_dir / "studio.lock")
    try:
        lock.acquire(timeout=2)
    except Timeout:
        return False
    with lock:
        Server(studio, device).run()
    return True


class Server:
    """Holds the model and works through the requests one by one."""

    def __init__(self, studio: Studio, device: torch.device) -> None:
        self._studio = studio
        self._device = device
        self._painter: Painter | None = None
        self._plain_pictures: OrderedDict[str, Path] = OrderedDict()
        self._last_use = time.monotonic()
        # on the CPU pictures and training may go on beside each other, only slower
        uuid = gpu_uuid(device)
        self._turn = None if uuid is None else gpu_turn(uuid, "the picture model of the page", gives_way=True)

    def run(self) -> None:
        """The loop."""
        for folder in (self._studio.requests_dir, self._studio.answers_dir, self._studio.previews_dir):
            folder.mkdir(parents=True, exist_ok=True)
        self._tidy()
        self._say("ready")
        try:
            while (idle_s := time.monotonic() - self._last_use) < self._studio.idle_minutes * 60:
                if not self.work():
                    self._make_room()
                    time.sleep(min(0.25, 0.02 + idle_s / 100))  # quick while somebody moves sliders, cheap at rest
        finally:
            self._let_go()
            self._say("off")

    def work(self) -> bool:
        """Answer what is most urgent: the newest preview, else the oldest other request. False when nothing waits."""
        waiting = request_paths(self._studio.requests_dir)
        previews = [path for path in waiting if _is_preview(path)]
        for path in previews[:-1]:
            self._finish(path, Answer(id=path.stem, state="cancelled"))
        chosen = previews[-1] if previews else (waiting[0] if waiting else None)
        if chosen is None:
            return False
        self._answer(chosen)
        self._last_use = time.monotonic()
        return True

    def _answer(self, path: Path) -> None:
        answer = read_answer(self._studio.answers_dir, path.stem)
        request = read_request(path)
        if answer.final or request is None:
            self._finish(path, answer if answer.final else _failed(answer, _UNREADABLE))
            return
        answer = answer.model_copy(update={"state": "running", "attempts": answer.attempts + 1})
        answer.started = answer.started or time.time()
        if answer.attempts > MAX_ATTEMPTS:
            self._finish(path, _failed(answer, _DIED))
            return
        try:
            if self._is_unwanted(request):
                raise _Cancelled
            self._draw(request, answer)
            answer.state = "done"
        except _Cancelled:
            answer.state = "cancelled"
        except UserError as error:
            answer = _failed(answer, *error.problems)
        except Exception:
            self._let_go()  # in whatever state it was left
            traceback.print_exc()
            answer = _failed(answer, self._unexpected())
        self._finish(path, answer)

    def _draw(self, request: Request, answer: Answer) -> None:
        """Make the request's pictures; those an earlier process already made are kept."""
        self._take_the_gpu()
        check_files(request.settings)
        painter = self._model(request, answer)
        per_picture = painter.steps(request.settings)
        answer.steps = per_picture * (2 if request.compare else request.settings.count)
        answer.step = per_picture * len(answer.pictures)
        painter_loras = request.settings.loras
        if request.compare and not answer.pictures:
            answer.pictures.append(str(self._plain(painter, request, answer)))
        painter.use(painter_loras)
        self._say("drawing")
        for index in range(len(answer.pictures), 2 if request.compare else request.settings.count):
            seed = request.settings.seed + (0 if request.compare else index)
            image = painter.draw(request.settings, seed, self._progress(request, answer, index * per_picture))
            answer.pictures.append(str(self._save(painter, image, request, seed)))
            self._tell(answer)
            if len(answer.pictures) < request.settings.count and self._is_in_the_way():
                self._let_go()
                raise _gpu_wanted()
        self._say("ready")

    def _save(self, painter: Painter, image: Image.Image, request: Request, seed: int) -> Path:
        if request.kind == "generate":
            return save_picture(painter, image, request.settings, seed, self._studio.workspace.pictures_dir)
        path = self._studio.previews_dir / f"{request.id}.png"
        save_png(image, path, request.settings.model_dump())
        return path

    def _plain(self, painter: Painter, request: Request, answer: Answer) -> Path:
        """The picture without LoRAs; one that was made before is used again."""
        settings = request.settings.model_copy(update={"loras": []})
        key = settings.model_dump_json()
        path = self._plain_pictures.get(key)
        if path is None or not path.exists():
            painter.use([])
            image = painter.draw(settings, settings.seed, self._progress(request, answer, 0))
            path = self._studio.previews_dir / f"{request.id}-plain.png"
            save_png(image, path, settings.model_dump())
            self._plain_pictures[key] = path
        self._plain_pictures.move_to_end(key)
        return path

    def _model(self, request: Request, answer: Answer) -> Painter:
        wanted = request.settings.model
        if self._painter is None or self._painter.model != wanted:
            answer.what = "loading the model"
            self._tell(answer)
            self._forget_model()
            self._say("loading", wanted)
            self._painter = Painter(wanted, self._device)
        answer.what = "drawing"
        self._tell(answer)
        return self._painter

    def _progress(self, request: Request, answer: Answer, before: int) -> OnStep:
        """What is called after each denoising step: ends pictures nobody wants, and tells how far this one is."""
        told = 0.0

        def after_step(progress: Progress) -> None:
            nonlocal told
            if self._is_unwanted(request):
                raise _Cancelled
            answer.step = before + progress.done
            if time.monotonic() - told > PROGRESS_EVERY_S:
                told = time.monotonic()
                self._tell(answer)

        return after_step

    def _is_unwanted(self, request: Request) -> bool:
        if (self._studio.requests_dir / f"{request.id}.cancel").exists():
            return True
        if request.kind != "preview":
            return False
        return any(_is_preview(path) and path.stem > request.id for path in request_paths(self._studio.requests_dir))

    def _finish(self, path: Path, answer: Answer) -> None:
        answer.ended = time.time()
        self._tell(answer)
        path.unlink(missing_ok=True)
        path.with_suffix(".cancel").unlink(missing_ok=True)
        self._tidy()

    def _tell(self, answer: Answer) -> None:
        write_json(self._studio.answers_dir / f"{answer.id}.json", answer.model_dump())

    def _say(self, state: StudioState, model: str | None = None) -> None:
        painter = self._painter
        info = StudioInfo(
            **this_process(),
            state=state,
            model=model or (painter.model if painter else None),
            device=str(self._device),
            loras=painter.loras if painter else [],
            since=time.time(),
        )
        write_json(self._studio.info_path, info.model_dump())

    def _tidy(self) -> None:
        """Keep the newest answers and preview pictures only."""
        previews = sorted(self._studio.previews_dir.glob("*.png"))
        in_use = set(self._plain_pictures.values())
        for old in previews[:-KEPT_PREVIEWS]:
            if old not in in_use:
                old.unlink(missing_ok=True)
        for old in sorted(self._studio.answers_dir.glob("*.json"))[:-KEPT_ANSWERS]:
            old.unlink(missing_ok=True)
        while len(self._plain_pictures) > KEPT_PREVIEWS:
            self._plain_pictures.popitem(last=False)

    def _forget_model(self) -> None:
        self._painter = None
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _let_go(self) -> None:
        """Give the GPU to whoever wants it."""
        self._forget_model()
        if self._turn is not None:
            self._turn.give_back()

    def _make_room(self) -> None:
        if self._is_in_the_way():
            self._let_go()
            self._say("ready")

    def _is_in_the_way(self) -> bool:
        """Whether a run, of any workspace or a terminal, or another studio waits for the GPU that this process has."""
        return self._turn is not None and self._turn.held and self._turn.wanted

    def _take_the_gpu(self) -> None:
        """Have the GPU from now on, until another process wants it. Raises UserError while it is in use."""
        if self._turn is not None and not self._turn.held and not self._turn.take_if_idle():
            raise _gpu_busy(self._turn.holder)

    def _unexpected(self) -> Problem:
        return Problem(
            "studio.failed", "The picture could not be made.", f"The reason is at the end of {self._studio.log_path}."
        )


_UNREADABLE = Problem("studio.request", "The picture request cannot be read.", "Ask for the picture again.")
_DIED = Problem(
    "studio.died",
    f"The picture process ended {MAX_ATTEMPTS} times while drawing this.",
    "The memory may not suffice: make the picture smaller, or end other programs.",
)


def _gpu_busy(holder: Holder | None) -> UserError:
    hint = "To make pictures, wait for its end, or pause or stop it."
    return UserError("studio.gpu_busy", busy_words("the GPU", holder), hint)


def _gpu_wanted() -> UserError:
    message = "The pictures that were left to be made gave way to another job that needs the GPU."
    return UserError("studio.gpu_busy", message, "Ask for them again when it has ended.")


def _is_preview(path: Path) -> bool:
    return "-preview-" in path.name


def _failed(answer: Answer, *problems: Problem) -> Answer:
    return answer.model_copy(update={"state": "failed", "error": [vars(problem) for problem in problems]})

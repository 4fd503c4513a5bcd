"""The studio's process: keeps one model loaded and answers the picture requests of ``trainer/studio.py``."""

from __future__ import annotations

import gc
import time
import traceback
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from trainer.devices import gpu_uuid
from trainer.errors import Problem, StoppedOnRequest, UserError
from trainer.files import write_json
from trainer.generate import Painter, check_files
from trainer.grids.turn import GridTurn
from trainer.pictures import PictureSettings
from trainer.runs.store import this_process
from trainer.runs.turns import Holder, busy_words, gpu_turn
from trainer.studio import (
    Answer,
    Request,
    Studio,
    StudioInfo,
    StudioState,
    is_preview,
    read_answer,
    read_request,
    waiting_paths,
    write_answer,
)
from trainer.studio_drawing import KEPT_PREVIEWS, Cancelled, Drawing, PlainPictures, check_wanted

KEPT_ANSWERS = 500
MAX_ATTEMPTS = 3
"""A request that took the process down this often is given up."""
GPU_LOOK_EVERY_S = 0.5


class _Postponed(Exception):
    """Something more urgent is waiting."""


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
        self._plain = PlainPictures()
        self._last_use = time.monotonic()
        # on the CPU pictures and training may go on beside each other, only slower
        uuid = gpu_uuid(device)
        self._turn = None if uuid is None else gpu_turn(uuid, "the picture model of the page", gives_way=True)

    def run(self) -> None:
        """The loop."""
        studio = self._studio
        for folder in (studio.requests_dir, studio.answers_dir, studio.previews_dir, studio.live_dir):
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
        """Answer what is most urgent: the newest preview, else the first of the others. False when nothing waits."""
        waiting = waiting_paths(self._studio.requests_dir)
        if not waiting:
            return False
        for path in filter(is_preview, waiting[1:]):
            self._finish(path, Answer(id=path.stem, state="cancelled"))
        self._answer(waiting[0])
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
        if answer.attempts > MAX_ATTEMPTS and request.kind != "grid":  # a grid goes on without that cell
            self._finish(path, _failed(answer, _DIED))
            return
        try:
            if request.kind == "grid":
                self._draw_grid(request, answer)
            else:
                self._draw(request, answer)
            answer.state = "done"
        except _Postponed:
            update = {"state": "waiting", "attempts": 0}
            write_answer(self._studio.answers_dir, answer.model_copy(update=update))
            return
        except Cancelled:
            answer.state = "cancelled"
        except UserError as error:
            answer = _failed(answer, *error.problems)
        except StoppedOnRequest:
            raise  # what was asked for waits until the process is started again
        except Exception:
            self._let_go()  # in whatever state it was left
            traceback.print_exc()
            answer = _failed(answer, self._unexpected())
        self._finish(path, answer)

    def _draw(self, request: Request, answer: Answer) -> None:
        """Make the request's pictures; between two of them it gives way to whatever is more urgent."""
        check_wanted(self._studio, request)
        self._take_the_gpu()
        check_files(request.settings)
        drawing = Drawing(self._studio, request, answer, self._model(request, answer), self._plain)
        self._say("drawing")
        while not drawing.is_done:
            drawing.draw_next()
            if not drawing.is_done:
                self._give_way(request)
        self._say("ready")

    def _draw_grid(self, request: Request, answer: Answer) -> None:
        """Draw the missing cells of a grid; after each it gives way to whatever is more urgent."""
        turn = GridTurn(self._studio, request, answer)
        if answer.attempts > MAX_ATTEMPTS:
            turn.give_up(_DIED)
        try:
            while turn.has_more:
                self._draw_cell(request, answer, turn)
                self._give_way(request)
        except Cancelled:
            turn.finish()
            raise
        turn.finish()
        self._say("ready")

    def _draw_cell(self, request: Request, answer: Answer, turn: GridTurn) -> None:
        def painter_of(settings: PictureSettings) -> Painter:
            return self._model(request.model_copy(update={"settings": settings}), answer)

        check_wanted(self._studio, request)
        if not self._gpu_is_ours():
            answer.what = "waiting for the GPU"
            time.sleep(GPU_LOOK_EVERY_S)
            raise _Postponed
        self._say("drawing")
        try:
            turn.draw_next(painter_of)
        except (Cancelled, StoppedOnRequest):
            raise
        except Exception:
            self._let_go()
            traceback.print_exc()
            turn.give_up(self._unexpected())

    def _give_way(self, request: Request) -> None:
        if self._is_in_the_way():
            self._let_go()
            raise _Postponed if request.kind == "grid" else _gpu_wanted()
        most_urgent = next(iter(waiting_paths(self._studio.requests_dir)), None)
        if most_urgent is not None and most_urgent.stem != request.id:
            raise _Postponed

    def _model(self, request: Request, answer: Answer) -> Painter:
        wanted = request.settings.model
        if self._painter is None or self._painter.model != wanted:
            answer.what = "loading the model"
            write_answer(self._studio.answers_dir, answer, durable=False)
            self._forget_model()
            self._say("loading", wanted)
            self._painter = Painter(wanted, self._device)
        answer.what = "drawing"
        write_answer(self._studio.answers_dir, answer, durable=False)
        return self._painter

    def _finish(self, path: Path, answer: Answer) -> None:
        answer = answer.model_copy(update={"ended": time.time(), "live": ""})
        write_answer(self._studio.answers_dir, answer)
        for left in (path, path.with_suffix(".cancel"), path.with_suffix(".first"), self._studio.live_path(path.stem)):
            left.unlink(missing_ok=True)
        self._tidy()

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
        for old in sorted(self._studio.previews_dir.glob("*.png"))[:-KEPT_PREVIEWS]:
            if old not in self._plain:
                old.unlink(missing_ok=True)
        for old in sorted(self._studio.answers_dir.glob("*.json"))[:-KEPT_ANSWERS]:
            old.unlink(missing_ok=True)

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
        if self._turn is not None and not self._gpu_is_ours():
            raise _gpu_busy(self._turn.holder)

    def _gpu_is_ours(self) -> bool:
        """Whether this process has the GPU, or needs none; it takes one that nobody uses."""
        return self._turn is None or self._turn.held or self._turn.take_if_idle()

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


def _failed(answer: Answer, *problems: Problem) -> Answer:
    return answer.model_copy(update={"state": "failed", "error": [vars(problem) for problem in problems]})

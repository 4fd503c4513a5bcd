"""The studio's process: keeps one model loaded and answers the picture requests of ``trainer/studio.py``."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from trainer.config import LoraSettings, ModelSettings
from trainer.devices import (
    features_of,
    free_memory_bytes,
    give_back_memory,
    gpu_uuid,
    held_memory_bytes,
    is_out_of_memory,
)
from trainer.errors import Problem, StoppedOnRequest, UserError
from trainer.files import write_json
from trainer.generate import Painter, check_files
from trainer.grids.store import PUTTING_TOGETHER
from trainer.grids.turn import Finishing, GridTurn
from trainer.memory_savers import Savers, choose_savers, weight_bytes
from trainer.model_sizes import model_sizes
from trainer.pictures import PictureSettings
from trainer.runs.store import this_process
from trainer.runs.turns import Holder, busy_words, gpu_turn
from trainer.studio import (
    Answer,
    Request,
    Studio,
    StudioInfo,
    StudioState,
    checked_request,
    is_preview,
    read_answer,
)
from trainer.studio_answers import Answers, failed, log_error
from trainer.studio_drawing import Cancelled, Drawing, PlainPictures, check_wanted

MAX_ATTEMPTS = 3
"""A request that took the process down this often is given up."""
REST_AFTER_S = 1.5
USUAL_SIDE_PX = 1024
"""For a model that is not loaded yet, and whose own size is not known then."""
GPU_LOOK_EVERY_S = 0.5
LOOK_EVERY_S = 0.1


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
        self._finishing = Finishing()
        self._answers = Answers(studio, self._plain)
        self._last_use = time.monotonic()
        self._rests = True
        # on the CPU pictures and training may go on beside each other, only slower
        uuid = gpu_uuid(device)
        self._turn = None if uuid is None else gpu_turn(uuid, "the picture model of the page", gives_way=True)

    def run(self) -> None:
        """The loop."""
        studio = self._studio
        for folder in (studio.requests_dir, studio.answers_dir, studio.previews_dir, studio.live_dir):
            folder.mkdir(parents=True, exist_ok=True)
        self._answers.tidy()
        self._say("ready")
        try:
            while (idle_s := time.monotonic() - self._last_use) < self._studio.idle_minutes * 60:
                if not self.work():
                    self._make_room()
                    self._rest(idle_s)
                    time.sleep(min(0.25, 0.02 + idle_s / 100))  # quick while somebody moves sliders, cheap at rest
        finally:
            self._let_go()
            self._say("off")

    def work(self) -> bool:
        """Answer what is most urgent: the newest preview, else the first of the others. False when nothing waits."""
        self._answers.finish_late()
        waiting = self._answers.waiting()
        if not waiting:
            return False
        for path in filter(is_preview, waiting[1:]):
            self._answers.finish(path, Answer(id=path.stem, state="cancelled"))
        self._answer(waiting[0])
        self._say("ready")
        self._rests = False
        self._last_use = time.monotonic()
        return True

    def _answer(self, path: Path) -> None:
        answer = read_answer(self._studio.answers_dir, path.stem)
        if answer.final:
            self._answers.finish(path, answer)
            return
        answer = answer.model_copy(update={"state": "running", "attempts": answer.attempts + 1})
        answer.started = answer.started or time.time()
        try:
            self._draw(checked_request(path), answer)
            answer.state = "done"
        except _Postponed:
            self._answers.tell(answer.model_copy(update={"state": "waiting", "attempts": 0}))
            return
        except Cancelled:
            answer.state = "cancelled"
        except UserError as error:
            answer = failed(answer, *error.problems)
        except StoppedOnRequest:
            raise  # what was asked for waits until the process is started again
        except Exception as error:
            self._let_go()  # in whatever state it was left
            log_error()
            answer = failed(answer, _MEMORY if is_out_of_memory(error) else self._unexpected())
        self._answers.finish(path, answer)

    def _draw(self, request: Request, answer: Answer) -> None:
        """Make the request's pictures; between two of them it gives way to whatever is more urgent."""
        if request.kind == "grid":
            self._draw_grid(request, answer)
            return
        check_wanted(self._studio, request)
        if answer.attempts > MAX_ATTEMPTS:
            raise UserError.many([_DIED])
        self._take_the_gpu()
        check_files(request.settings)
        drawing = Drawing(self._studio, request, answer, self._model(request, answer), self._plain)
        self._say("drawing")
        while not drawing.is_done:
            drawing.draw_next()
            if not drawing.is_done:
                self._give_way(request)

    def _draw_grid(self, request: Request, answer: Answer) -> None:
        """Draw the missing cells of a grid, then its sheet; between them it gives way to whatever is more urgent."""
        if not self._finishing.is_begun(request.id):
            turn = GridTurn(self._studio, request, answer)
            with suppress(Cancelled):  # what there is, is put together
                self._draw_cells(request, answer, turn)
            self._finishing.begin(request.id, turn.finish)
        answer.what = PUTTING_TOGETHER
        if not self._finishing.has_ended(request.id, LOOK_EVERY_S):
            self._make_room()
            raise _Postponed
        if GridTurn(self._studio, request, answer).has_more:
            raise Cancelled

    def _draw_cells(self, request: Request, answer: Answer, turn: GridTurn) -> None:
        if answer.attempts > MAX_ATTEMPTS:
            turn.give_up(_DIED)
        while turn.has_more:
            self._draw_cell(request, answer, turn)
            self._give_way(request)

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
            log_error()
            turn.give_up(self._unexpected())

    def _give_way(self, request: Request) -> None:
        if self._is_in_the_way():
            self._let_go()
            raise _Postponed if request.kind == "grid" else _gpu_wanted()
        most_urgent = next(iter(self._answers.waiting()), None)
        if most_urgent is not None and most_urgent.stem != request.id:
            raise _Postponed

    def _model(self, request: Request, answer: Answer) -> Painter:
        wanted = request.settings.model
        if self._painter is None or self._painter.model != wanted:
            answer.what = "loading the model"
            self._answers.tell(answer)
            self._forget_model()
            self._say("loading", wanted)
            self._sizes = model_sizes(ModelSettings(base=wanted), LoraSettings(), inpainting=True)
            self._painter = Painter(wanted, self._device, savers=self._savers(request.settings))
        self._painter.save_memory(self._savers(request.settings))
        answer.notes = self._painter.savers.in_words
        answer.what = "drawing"
        self._answers.tell(answer)
        return self._painter

    def _savers(self, settings: PictureSettings) -> Savers:
        """What it takes to draw this beside what else is in the memory now."""
        on_gpu, room = features_of(self._device).own_memory, free_memory_bytes(self._device)
        size = (settings.width or USUAL_SIDE_PX, settings.height or USUAL_SIDE_PX)
        if self._painter is not None:
            size = self._painter.size(settings)
            room += held_memory_bytes(self._device) if on_gpu else weight_bytes(self._sizes, on_gpu=False)
        return choose_savers(room, self._sizes, settings.enlarged(size), settings.batch_size, on_gpu=on_gpu)

    def _say(self, state: StudioState, model: str | None = None) -> None:
        painter = self._painter
        info = StudioInfo(
            **this_process(),
            state=state,
            model=model or (painter.model if painter else None),
            device=str(self._device),
            loras=painter.loras if painter else [],
            savers=painter.savers.in_words if painter else [],
            replays=painter.replays if painter else "",
            memory_bytes=held_memory_bytes(self._device),
            since=time.time(),
        )
        with suppress(OSError):  # a full disk is told of where a picture is saved
            write_json(self._studio.info_path, info.model_dump(), durable=False)

    def _forget_model(self) -> None:
        self._painter = None
        give_back_memory(self._device)

    def _let_go(self) -> None:
        """Give the GPU to whoever wants it."""
        self._forget_model()
        if self._turn is not None:
            self._turn.give_back()

    def _make_room(self) -> None:
        if self._is_in_the_way():
            self._let_go()
            self._say("ready")

    def _rest(self, idle_s: float) -> None:
        """Give back, once nobody has wanted anything for a moment, what the last pictures took and nothing uses."""
        if not self._rests and idle_s > REST_AFTER_S:
            self._rests = True
            give_back_memory(self._device)
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


_MEMORY = Problem(
    "studio.memory", "The memory does not suffice for this model and its LoRAs.", "End other programs, then try again."
)
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

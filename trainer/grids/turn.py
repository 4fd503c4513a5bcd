"""A grid at its turn in the picture process: its missing cells, one after the other."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from threading import Thread

from trainer.drawing import Progress
from trainer.errors import Problem
from trainer.grids.drawing import PainterOf, draw_cell, finish_grid
from trainer.grids.store import grid_of
from trainer.picture_pace import PicturePace
from trainer.studio import Answer, Request, Studio, write_answer
from trainer.studio_drawing import PROGRESS_EVERY_S, check_wanted


class Finishing:
    """The sheets of grids that are drawn, put together beside whatever else is drawn: a large one takes a minute."""

    def __init__(self) -> None:
        self._futures: dict[str, Future[None]] = {}

    def is_begun(self, request_id: str) -> bool:
        """Whether the pictures of a request are being put together."""
        return request_id in self._futures

    def begin(self, request_id: str, finish: Callable[[], None]) -> None:
        """Call ``finish`` in a thread that ends with the process: what it leaves undone is begun anew by the next."""
        future = self._futures[request_id] = Future()

        def run() -> None:
            try:
                finish()
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(None)

        Thread(target=run, daemon=True).start()

    def has_ended(self, request_id: str, patience_s: float) -> bool:
        """Whether it has, or does in so long. Raises what went wrong with it."""
        if not wait([self._futures[request_id]], patience_s).done:
            return False
        self._futures.pop(request_id).result()
        return True


class GridTurn:
    """A request for a grid and its answer, whose steps are those of the cell that is being drawn.

    Raises UserError when there is no such grid.
    """

    def __init__(self, studio: Studio, request: Request, answer: Answer) -> None:
        self._studio = studio
        self._request = request
        self._answer = answer
        self._grid = grid_of(studio.workspace, request.grid)
        self._spec = self._grid.read().spec
        self._pace = PicturePace(studio.workspace)
        self._next = self._grid.next_cell(self._spec)
        self._told = 0.0

    @property
    def has_more(self) -> bool:
        """Whether a cell is left to be drawn."""
        return self._next is not None

    def draw_next(self, painter_of: PainterOf) -> None:
        """Draw the next cell. Raises Cancelled where somebody asked for an end."""
        assert self._next is not None
        self._answer.step = 0
        draw_cell(self._grid, self._spec, self._next, painter_of, self._after_step, self._pace)
        self._go_on()

    def give_up(self, problem: Problem) -> None:
        """Leave the next cell out, for a reason that is not in its settings."""
        if self._next is not None:
            self._grid.fail(self._next, [problem])
            self._go_on()

    def finish(self) -> None:
        """Put together what there is."""
        finish_grid(self._grid, self._spec)

    def _go_on(self) -> None:
        self._answer.attempts = 1  # the next cell is another one
        self._next = self._grid.next_cell(self._spec)

    def _after_step(self, progress: Progress) -> None:
        check_wanted(self._studio, self._request)
        self._answer.step, self._answer.steps = progress.done, progress.total
        if time.monotonic() - self._told > PROGRESS_EVERY_S:
            self._told = time.monotonic()
            write_answer(self._studio.answers_dir, self._answer, durable=False)

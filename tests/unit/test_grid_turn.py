"""Grids in the picture process: killed in the middle they end complete, and everything else goes before them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from threading import Event

import psutil
import pytest
import torch
from PIL import Image

from tests.studio_answers import awaited
from tests.unit.test_studio import FAST, request_without_process, server_without_process, until
from trainer.errors import StoppedOnRequest
from trainer.grids.drawing import draw_grid, finish_grid
from trainer.grids.spec import Cell, GridSpec, parse_grid
from trainer.grids.store import Grid, create_grid, new_grid
from trainer.pictures import read_settings
from trainer.runs import turns
from trainer.runs.events import EventSink
from trainer.runs.store import Workspace
from trainer.runs.turns import Turn
from trainer.studio import Answer, Studio, read_answer
from trainer.studio_server import MAX_ATTEMPTS, Server

FIVE_BY_FIVE = {"x": {"kind": "seed", "values": "1-5"}, "y": {"kind": "guidance", "values": "1-5"}}
BASE = {"prompt": "a red star", "steps": 2, "width": 64, "height": 64, "sampler": "euler"}


class Quiet(EventSink):
    """Nobody listens."""

    def emit(self, kind: str, step: int = 0, **told: object) -> None:
        pass


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    studio = Studio(Workspace(tmp_path_factory.mktemp("workspace")), idle_minutes=2)
    yield studio
    studio.let_go()


def ask(studio: Studio, spec: GridSpec) -> tuple[Grid, str]:
    grid = new_grid(studio.workspace, spec)
    return grid, studio.draw_grid(grid.id, spec.base)


def pixels(grid: Grid, spec: GridSpec) -> dict[Cell, bytes]:
    return {cell: Image.open(grid.picture(cell)).tobytes() for cell in spec.cells()}


def end_the_hard_way(studio: Studio) -> None:
    pid = studio.info().pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    until(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)


def test_killed_it_ends_complete_and_the_same(studio: Studio, tmp_path: Path) -> None:
    """And a preview asked for in the middle is drawn before its other cells."""
    spec = parse_grid({"base": BASE, **FIVE_BY_FIVE})
    grid, request = ask(studio, spec)
    until(lambda: grid.progress(spec).drawn >= 4)
    end_the_hard_way(studio)
    assert grid.progress(spec).left > 0
    until(lambda: studio.answer(request) and studio.info().state == "drawing", 120)
    preview = awaited(studio, studio.preview(FAST), 60)
    assert (preview.state, grid.progress(spec).left > 0) == ("done", True)

    assert awaited(studio, request, 120).state == "done"
    assert grid.progress(spec).drawn == 25
    assert grid.sheet_path.is_file()
    whole = create_grid(tmp_path / "whole", spec)
    draw_grid(whole, device=torch.device("cpu"), events=Quiet())
    assert pixels(grid, spec) == pixels(whole, spec)
    assert len(set(pixels(grid, spec).values())) == 25


def test_cancelled_it_keeps_what_is_there_and_goes_on_when_asked(studio: Studio) -> None:
    spec = parse_grid({"base": BASE | {"steps": 8}, **FIVE_BY_FIVE})
    grid, request = ask(studio, spec)
    until(lambda: grid.progress(spec).drawn >= 2)
    studio.cancel(request)
    assert awaited(studio, request, 60).state == "cancelled"
    drawn = grid.progress(spec).drawn
    assert 2 <= drawn < 25
    assert grid.sheet_path.is_file()
    kept = {path.name: path.stat().st_mtime_ns for path in grid.cells_dir.glob("*.png")}
    again = studio.draw_grid(grid.id, spec.base)
    until(lambda: grid.progress(spec).drawn > drawn)
    studio.cancel(again)
    awaited(studio, again, 60)
    assert all(grid.cells_dir.joinpath(name).stat().st_mtime_ns == stamp for name, stamp in kept.items())
    assert read_settings(grid.picture(Cell(0, 0, 0)))["guidance"] == 1


def asked(workspace: Path, spec: GridSpec) -> tuple[Server, Studio, Grid, str]:
    """A grid asked for where no process answers but the server given back."""
    server, studio = server_without_process(workspace)
    quiet = type("Quiet", (Studio,), {"ensure": lambda self: None})(studio.workspace, 1)
    grid = new_grid(studio.workspace, spec)
    return server, studio, grid, quiet.draw_grid(grid.id, spec.base)


def work_until_answered(server: Server, studio: Studio, request: str) -> Answer:
    """The sheet is put together beside the other work."""
    until(lambda: server.work() and read_answer(studio.answers_dir, request).final)
    return read_answer(studio.answers_dir, request)


TWO = parse_grid({"base": BASE | {"steps": 1}, "x": {"kind": "seed", "values": "1-2"}})


def test_generate_goes_before_it(tmp_path: Path) -> None:
    server, studio, grid, request = asked(tmp_path, TWO)
    later = request_without_process(studio, FAST)
    server.work()
    assert read_answer(studio.answers_dir, later).state == "done"
    assert grid.progress(TWO).drawn == 0
    assert work_until_answered(server, studio, request).state == "done"


def test_a_cell_that_takes_the_process_down_is_left_out(tmp_path: Path) -> None:
    server, studio, grid, request = asked(tmp_path, TWO)
    died = Answer(id=request, state="running", attempts=MAX_ATTEMPTS)
    (studio.answers_dir / f"{request}.json").write_text(died.model_dump_json())
    assert work_until_answered(server, studio, request).state == "done"
    assert grid.failure(Cell(0, 0, 0))[0]["code"] == "studio.died"
    assert grid.is_drawn(Cell(1, 0, 0))


def test_an_unexpected_failure_is_its_cells_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server, studio, grid, request = asked(tmp_path, TWO)
    model, calls = server._model, []

    def once(*given: object) -> object:
        calls.append(given)
        if len(calls) == 1:
            raise RuntimeError("nobody knows why")
        return model(*given)

    monkeypatch.setattr(server, "_model", once)
    assert work_until_answered(server, studio, request).state == "done"
    assert grid.failure(Cell(0, 0, 0))[0]["code"] == "studio.failed"
    assert grid.is_drawn(Cell(1, 0, 0))


def test_asked_to_end_the_process_leaves_the_rest_for_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server, studio, grid, request = asked(tmp_path, TWO)

    def end(*given: object) -> object:
        raise StoppedOnRequest("stopped on request")

    monkeypatch.setattr(server, "_model", end)
    with pytest.raises(StoppedOnRequest):
        server.work()
    assert [each.id for each in studio.pending()] == [request]
    assert grid.progress(TWO).left == 2


def test_it_waits_for_the_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "_GIVE_WAY_SECONDS", 0.1)
    server, studio, grid, request = asked(tmp_path, TWO)
    run, server._turn = Turn(tmp_path / "gpu.lock"), Turn(tmp_path / "gpu.lock")
    assert run.take()
    server.work()
    answer = read_answer(studio.answers_dir, request)
    assert (answer.state, answer.what) == ("waiting", "waiting for the GPU")
    run.give_back()
    assert work_until_answered(server, studio, request).state == "done"
    assert grid.progress(TWO).drawn == 2


def test_pictures_are_drawn_while_its_sheet_is_put_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server, studio, grid, request = asked(tmp_path, TWO)
    go_on = Event()
    monkeypatch.setattr("trainer.grids.turn.finish_grid", lambda *given: go_on.wait(60) and finish_grid(*given))
    server.work()
    answer = read_answer(studio.answers_dir, request)
    assert (answer.state, answer.what, grid.progress(TWO).drawn) == ("waiting", "putting the sheet together", 2)
    later = request_without_process(studio, FAST)
    server.work()
    assert read_answer(studio.answers_dir, later).state == "done" and not grid.sheet_path.exists()
    go_on.set()
    assert work_until_answered(server, studio, request).state == "done"
    assert grid.sheet_path.is_file()


def test_a_sheet_that_cannot_be_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server, studio, _, request = asked(tmp_path, TWO)

    def full(*given: object) -> None:
        raise OSError("no space")

    monkeypatch.setattr("trainer.grids.turn.finish_grid", full)
    answer = work_until_answered(server, studio, request)
    assert (answer.state, answer.error[0]["code"]) == ("failed", "studio.failed")

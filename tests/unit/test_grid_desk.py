"""What the page says of grids, and does with them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from trainer import file_states
from trainer.errors import Problem, UserError
from trainer.grids.store import Grid, grids
from trainer.picture_pace import PicturePace
from trainer.pictures import PictureSettings, save_png
from trainer.runs.bin import Bin
from trainer.runs.store import Workspace
from trainer.studio import Answer, Studio, write_answer
from ui.context import AppContext
from ui.grids.desk import GridDesk

BASE = PictureSettings(prompt="a star", steps=10, width=128, height=128)
AXES = {"x": {"kind": "seed", "values": "1-3"}, "y": {"kind": "guidance", "values": "1, 2"}, "z": None}


class QuietStudio(Studio):
    """Keeps requests; nobody draws them."""

    def ensure(self) -> None:
        pass


@pytest.fixture
def studio(tmp_path: Path) -> Studio:
    return QuietStudio(Workspace(tmp_path), 1)


@pytest.fixture
def desk(studio: Studio) -> GridDesk:
    return GridDesk(AppContext(studio.workspace), studio)


def told(desk: GridDesk, grid: Grid) -> dict[str, Any]:
    return dict(json.loads(desk.shown(grid.id))["shown"])


def answer(studio: Studio, **told: Any) -> None:
    (request,) = studio.pending()
    write_answer(studio.answers_dir, Answer(id=request.id, **told))


def draw(grid: Grid, number: int) -> None:
    save_png(Image.new("RGB", (8, 8)), grid.picture(list(grid.read().spec.cells())[number]), {})


def end(studio: Studio) -> None:
    for path in studio.requests_dir.iterdir():
        path.unlink()


def test_a_grid_is_weighed_before_it_is_drawn(desk: GridDesk, studio: Studio) -> None:
    assert desk.weigh(BASE, AXES) == {"words": "6 pictures (3 × 2)", "problems": []}
    PicturePace(studio.workspace).note(BASE, (128, 128), 2.0)
    assert desk.weigh(BASE, AXES)["words"] == "6 pictures (3 × 2), about 12 s"
    assert grids(studio.workspace) == []


def test_problems_are_told_at_their_axis(desk: GridDesk, tmp_path: Path) -> None:
    elsewhere = str(tmp_path.parent / "a.safetensors")
    wrong = {"x": {"kind": "seed", "values": "a, b"}, "y": {"kind": "lora", "values": [elsewhere]}}
    problems = desk.weigh(BASE, wrong)["problems"]
    assert [problem["axis"] for problem in problems] == ["x", "x", "y"]
    assert "not open to the page" in problems[-1]["text"]
    with pytest.raises(UserError, match="prompt is empty"):
        desk.start(BASE.model_copy(update={"prompt": " "}), AXES)


def test_too_much_says_how_long_it_would_take(desk: GridDesk, studio: Studio) -> None:
    PicturePace(studio.workspace).note(BASE, (128, 128), 36.0)
    axes = {"x": {"kind": "seed", "values": "1-100"}, "y": {"kind": "steps", "values": "1-20"}}
    (problem,) = desk.weigh(BASE, axes)["problems"]
    assert "100 × 20 are 2,000 pictures, at most 1,000" in problem["text"]
    assert "10 h 00 min" in problem["text"]


def test_what_is_said_while_it_is_drawn(desk: GridDesk, studio: Studio) -> None:
    grid = desk.start(BASE, AXES)
    assert told(desk, grid)["words"] == "Waiting for its turn: 0 of 6 pictures."
    answer(studio, state="waiting", what="waiting for the GPU")
    assert told(desk, grid)["words"] == "Waiting for the GPU: 0 of 6 pictures."
    cells = list(grid.read().spec.cells())
    PicturePace(studio.workspace).note(BASE, (128, 128), 2.0)
    draw(grid, 0)
    grid.fail(cells[1], [Problem("x", "It does not fit.", "Choose another.")])
    answer(studio, state="running", what="drawing", step=5, steps=10)
    shown = told(desk, grid)
    assert shown["words"] == "Drawing: 1 of 6 pictures, about 8 s left."
    assert shown["share"] == pytest.approx(2.5 / 6)
    assert (shown["drawn"], shown["failed"]) == (["0-0-0"], {"1-0-0": "It does not fit. Choose another."})
    assert shown["busy"]
    end(studio)
    shown = told(desk, grid)
    assert (shown["words"], shown["busy"]) == ("Stopped: 1 of 6 pictures.", False)


def test_two_pictures_within_a_tick_of_the_clock_are_both_counted(
    desk: GridDesk, studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = desk.start(BASE, AXES)
    end(studio)
    draw(grid, 0)
    assert told(desk, grid)["words"] == "Stopped: 1 of 6 pictures."
    tick = grid.cells_dir.stat().st_mtime_ns
    draw(grid, 1)
    os.utime(grid.cells_dir, ns=(tick, tick))
    monkeypatch.setattr(file_states, "SETTLED_NS", -1)  # as if some seconds had passed
    assert told(desk, grid)["words"] == "Stopped: 2 of 6 pictures."


def test_going_on_ending_and_deleting(desk: GridDesk, studio: Studio) -> None:
    grid = desk.start(BASE, AXES)
    desk.go_on(grid.id)
    assert len(studio.pending()) == 1, "one that is drawn already is not asked for again"
    with pytest.raises(UserError, match="still being drawn"):
        desk.delete(grid.id)
    desk.cancel(grid.id)
    assert len(list(studio.requests_dir.glob("*.cancel"))) == 1
    end(studio)
    grid.fail(next(grid.read().spec.cells()), [Problem("x", "y")])
    desk.go_on(grid.id)
    assert told(desk, grid)["failed"] == {}
    end(studio)
    item = desk.delete(grid.id)
    assert (item.kind, item.title) == ("grid", "grid Seed × Guidance")
    assert not grid.dir.exists()
    assert Bin(studio.workspace.dir).restore(item.id) == grid.dir
    with pytest.raises(UserError, match="no grid"):
        desk.delete("../runs")


def test_a_page_is_told_of_what_changed_only(desk: GridDesk) -> None:
    assert desk.look("") == desk.look("")
    first = desk.start(BASE, AXES)
    now, shown = desk.look("")
    assert shown == first.id
    assert desk.look("gone")[1] == first.id
    draw(first, 0)
    assert desk.look("")[0] != now
    assert desk.last_axes()["x"]["values"] == ["1", "2", "3"]
    damaged = first.dir.with_name("99990101-000000-damaged") / "grid.json"
    damaged.parent.mkdir()
    damaged.write_text("{")
    assert desk.look("")[1] == first.id

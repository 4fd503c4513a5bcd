"""Drawing a grid: the very pictures of a painter, the reason where there is none, and going on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from trainer.__main__ import command_parser
from trainer.commands import grid as command
from trainer.errors import UserError
from trainer.generate import Painter
from trainer.grids import drawing
from trainer.grids.spec import Cell, parse_grid
from trainer.grids.store import Grid, create_grid
from trainer.pictures import PictureSettings, read_settings

SPEC = """
base: {prompt: "a red star", steps: 1, sampler: euler, width: 64, height: 64}
x: {kind: seed, values: 3-4}
y: {kind: lora, values: [none, broken.safetensors]}
"""


class Quiet:
    """Hears what is told of progress."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def emit(self, kind: str, *_: object, **told: Any) -> None:
        self.heard.append(kind)


def trainer_grid(folder: Path, spec: str = SPEC) -> dict[str, Any]:
    """What the command answers, in this process: a new one takes long to load torch."""
    (folder / "spec.yaml").write_text(spec)
    (folder / "broken.safetensors").write_bytes(b"not a LoRA")
    parser = command_parser("grid", command)
    args = parser.parse_args([str(folder / "spec.yaml"), "--out", str(folder / "out")])
    try:
        return command.run(args, Quiet())
    except UserError as error:
        return {"error": [vars(problem) for problem in error.problems]}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("grid")
    return folder, trainer_grid(folder)


def test_cells_are_what_a_painter_draws(drawn: tuple[Path, dict[str, Any]]) -> None:
    grid = Grid(drawn[0] / "out")
    painter = Painter("demo", torch.device("cpu"))
    painter.use([])
    settings = PictureSettings(prompt="a red star", steps=1, sampler="euler", width=64, height=64)
    for x, seed in enumerate((3, 4)):
        path = grid.picture(Cell(x, 0, 0))
        assert np.array_equal(np.asarray(Image.open(path)), np.asarray(painter.draw(settings, seed)))
        assert PictureSettings(**read_settings(path)) == settings.model_copy(update={"seed": seed})


def test_a_cell_that_fails_says_why_and_the_others_are_drawn(drawn: tuple[Path, dict[str, Any]]) -> None:
    answer = drawn[1]
    assert answer["cells"] == 2
    assert list(answer["failed"]) == ["0-1-0", "1-1-0"]
    assert "broken.safetensors" in answer["failed"]["0-1-0"][0]["message"]
    assert Path(answer["sheet"]).is_file()


def test_the_same_folder_goes_on_and_another_grid_is_refused(drawn: tuple[Path, dict[str, Any]]) -> None:
    grid = Grid(drawn[0] / "out")
    kept, lost = grid.picture(Cell(0, 0, 0)), grid.picture(Cell(1, 0, 0))
    before = kept.stat().st_mtime_ns, np.asarray(Image.open(lost))
    lost.write_bytes(lost.read_bytes()[:50])
    assert trainer_grid(drawn[0])["cells"] == 2
    assert kept.stat().st_mtime_ns == before[0]
    assert np.array_equal(np.asarray(Image.open(lost)), before[1])
    problem = trainer_grid(drawn[0], SPEC.replace("3-4", "3-5"))["error"][0]
    assert (problem["code"], "another grid" in problem["message"]) == ("out.exists", True)
    missing = trainer_grid(drawn[0], SPEC.replace("broken", "lost"))["error"][0]
    assert missing["message"] == "Y, LoRA: there is no file lost.safetensors."


def test_a_grid_of_two_models_loads_each_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    loaded: list[str] = []

    class Counted(Painter):
        def __init__(self, model: str, device: torch.device, events: object = None) -> None:
            loaded.append(model)
            super().__init__("demo", device)
            self.model = model

    monkeypatch.setattr(drawing, "Painter", Counted)
    base = {"steps": 1, "width": 64, "height": 64}
    axes = {"x": {"kind": "model", "values": "demo, copy"}, "y": {"kind": "seed", "values": "1-2"}}
    spec, events = parse_grid({"base": base, **axes}), Quiet()
    drawing.draw_grid(create_grid(tmp_path / "g", spec), device=torch.device("cpu"), events=events)
    assert loaded == ["demo", "copy"]
    assert events.heard == ["progress"] * 4

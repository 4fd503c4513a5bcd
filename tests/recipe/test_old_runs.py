"""Runs that earlier versions of this program made are listed, shown, gone on with and drawn with.

Each folder under ``tests/data/old_runs`` was written by the program of its time: six steps on the demo model. What two
steps more must give was found out by that program too.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image
from safetensors.torch import load_file

from tests.recipe.tiny_runs import losses_of, make_pictures, of_type, train_here
from trainer.__main__ import main
from trainer.commands.resume import take_over
from trainer.lora.file import read_lora
from trainer.pictures import read_settings
from trainer.runs.store import Run, Workspace
from ui.curves import Stretch
from ui.run_list import RunListReader
from ui.run_view import RunReader

OLD = Path(__file__).parents[1] / "data" / "old_runs"
MOMENTS = sorted(path.name for path in OLD.iterdir())
LOSSES = [0.2299439013004303, 0.4880931079387665, 0.17723976075649261, 0.29980555176734924, 0.2233799248933792,
          0.1899309605360031]  # fmt: skip
"""Of its steps, the same in all of them: what was computed did not change since."""
LATER_LOSSES = {7: 0.4433404207229614, 8: 0.5881454944610596}
LENGTH_OF_UP_PARTS = 0.039040797
"""Square root of the sum of squares after eight steps; after six it was 0.03808."""


@pytest.fixture(params=MOMENTS)
def run(request: pytest.FixtureRequest, workspace: Workspace, tmp_path: Path) -> Run:
    """A copy of an old run, with its pictures where it looks for them."""
    run = Run(workspace.runs_dir / request.param)
    shutil.copytree(OLD / request.param, run.dir)
    pictures = make_pictures(tmp_path / "pictures")
    run.config_path.write_text(run.config_path.read_text().replace("/pictures", str(pictures)))
    return run


def test_there_are_samples() -> None:
    assert MOMENTS == ["2026-11-a", "2026-11-b", "2026-11-c", "2026-11-d"]


def test_old_runs_are_listed_and_shown_and_stay_as_they_are(run: Run) -> None:
    before = {path: path.read_bytes() for path in run.dir.rglob("*") if path.is_file()}
    (info,) = RunListReader(run.workspace).read().infos
    assert (info.state, info.step, info.max_steps) == ("finished", 6, 6)
    reader = RunReader(run)
    view = reader.view()
    assert (view.has_lora, [saved.step for saved in view.checkpoints]) == (True, [6])
    series = json.loads(reader.curves(Stretch()))["series"]
    assert series["loss"]["mean"] == pytest.approx(LOSSES, rel=1e-6)
    assert {"lr", "grad_norm", "step_ms"} <= set(series)
    wall = reader.wall()
    assert (wall.prompts, wall.steps) == (["a big red circle"], [4, 6])
    settings = read_settings(run.samples_dir / "step-000006-p00-s42.png")
    assert (settings["prompt"], settings["steps"], settings["seed"]) == ("a big red circle", 2, 42)
    assert {path: path.read_bytes() for path in before} == before


def test_old_runs_go_on_as_they_would_have_gone_on_then(run: Run) -> None:
    take_over(run, max_steps=8)
    train_here(run)
    assert list(losses_of(run).values())[:6] == LOSSES
    assert {step: losses_of(run)[step] for step in (7, 8)} == pytest.approx(LATER_LOSSES, rel=1e-5)
    ups = [value.double() for name, value in load_file(run.output_path).items() if "lora_up" in name]
    assert float(sum((up**2).sum() for up in ups)) ** 0.5 == pytest.approx(LENGTH_OF_UP_PARTS, rel=1e-4)
    assert (run.read().state, run.read().version) == ("finished", 1)
    assert not of_type(run, "warning")


def test_pictures_are_drawn_with_old_loras(run: Run, tmp_path: Path) -> None:
    assert len(read_lora(run.output_path).layers) == 4
    out = tmp_path / "out"
    asked = ["generate", "--prompt", "a big red circle", "--lora", f"{run.output_path}=1", "--steps", "2"]
    assert main([*asked, "--width", "64", "--height", "64", "--out", str(out), "--json"]) == 0
    (drawn,) = out.glob("*.png")
    with Image.open(drawn) as picture:
        assert picture.size == (64, 64)

"""Values offered for the axes of a grid."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainer.config import Config
from trainer.errors import UserError
from trainer.grids.spec import parse_grid
from trainer.runs.store import Run, Workspace
from ui.grids.offers import checkpoint_axes, offers


def run_with(workspace: Workspace, *steps: int) -> Run:
    run = workspace.create_run(Config(name="my-cat"))
    for step in steps:
        folder = run.checkpoints_dir / f"step-{step:06d}"
        folder.mkdir()
        (folder / "lora.safetensors").touch()
    return run


def test_every_checkpoint_of_a_run_is_offered(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    run = run_with(workspace, *range(10, 80, 10))
    (run.checkpoints_dir / "step-000099").mkdir()
    run.output_path.touch()
    workspace.models_dir.mkdir()
    (workspace.models_dir / "merged.safetensors").touch()
    without, merged, mine = offers(workspace, "lora")
    assert without["items"] == [("no LoRA", "none")]
    assert merged["items"] == [("merged", str(workspace.models_dir / "merged.safetensors"))]
    assert (mine["group"], [label for label, _ in mine["items"]]) == (
        "my-cat",
        [*(f"step {step}" for step in range(10, 80, 10)), "finished"],
    )
    assert all(Path(value).is_file() for _, value in mine["items"])


def test_names_that_are_offered_are_read_again(tmp_path: Path) -> None:
    for kind in ("sampler", "schedule"):
        names = [value for offer in offers(Workspace(tmp_path), kind) for _, value in offer["items"]]
        spec = parse_grid({"x": {"kind": kind, "values": names}})
        assert len(spec.x.values) == len(names) > 5
    assert offers(Workspace(tmp_path), "steps") == offers(Workspace(tmp_path), "nonsense") == []


def test_checkpoints_by_weights(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    spec = parse_grid(checkpoint_axes(run_with(workspace, 5, 100)))
    assert (spec.x.labels, spec.y.values if spec.y else None) == (["step 5", "step 100"], [0.4, 0.6, 0.8, 1.0, 1.2])
    with pytest.raises(UserError, match="no checkpoints yet"):
        checkpoint_axes(run_with(workspace))

"""LoRAs and models by the names that other programs' pictures have for them."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainer.demo import MODEL_DIR
from trainer.infotext import NamedLora
from trainer.runs.store import Workspace
from ui.lora_choices import named_loras, named_model


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    workspace = Workspace(tmp_path / "workspace")
    workspace.models_dir.mkdir(parents=True)
    for name in ("Ink Style", "line"):
        (workspace.models_dir / f"{name}.safetensors").touch()
    return workspace


def test_loras_are_found_by_their_files_names(workspace: Workspace) -> None:
    named = [NamedLora("ink style", 0.5, "BASE:0"), NamedLora("lost"), NamedLora("line", -1.0)]
    found, missing = named_loras(workspace, named)
    assert [(Path(use.path).name, use.weight, use.parts) for use in found] == [
        ("Ink Style.safetensors", 0.5, "BASE:0"),
        ("line.safetensors", -1.0, ""),
    ]
    assert missing == ["lost"]


def test_models_are_found_by_name_with_and_without_ending(workspace: Workspace) -> None:
    merged = workspace.models_dir / "Dreamy v2"
    merged.mkdir()
    (merged / "model_index.json").write_bytes((MODEL_DIR / "model_index.json").read_bytes())
    for name in ("dreamy v2", "Dreamy v2.safetensors", "Dreamy V2.ckpt"):
        assert named_model(workspace, name) == str(merged)
    assert named_model(workspace, "demo") == "demo"
    assert named_model(workspace, "another") is None
    assert named_model(workspace, "") is None

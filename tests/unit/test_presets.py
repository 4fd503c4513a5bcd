"""Presets: each shipped file is valid, holds only what differs, and what is saved comes back."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainer.config import Config
from trainer.config_io import PRESETS_DIR, parse_config, read_yaml
from trainer.errors import UserError
from trainer.runs.store import Workspace
from ui import presets

SHIPPED = sorted(PRESETS_DIR.glob("*.yaml"))


def test_there_are_presets_for_the_demo_and_for_sd1() -> None:
    names = {path.stem for path in SHIPPED}
    assert {"demo_style", "demo_character", "sd1_character_8gb", "sd1_style_8gb", "sd1_concept_12gb"} <= names


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_preset_is_valid_and_explains_itself(path: Path) -> None:
    config = parse_config(read_yaml(path))
    preset = next(preset for preset in presets.presets(Workspace(Path("/nowhere"))) if preset.path == path)
    assert config.version == 1
    assert len(preset.title) > 5 and len(preset.about) > 60
    family = path.stem.partition("_")[0]
    assert (config.model.base == "demo") == (family == "demo")


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_preset_names_no_folder_of_somebody(path: Path) -> None:
    assert parse_config(read_yaml(path)).dataset.sources == []


def test_a_saved_preset_comes_back_and_is_listed_last(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    config = Config.model_validate({"name": "mine", "lora": {"rank": 7}, "train": {"learning_rate": 3e-5}})
    saved = presets.save(workspace, "My own (v2)", config)
    assert presets.presets(workspace)[-1] == saved
    assert presets.load(presets.find(workspace, saved.key)) == config
    assert "max_steps" not in saved.path.read_text()


@pytest.mark.parametrize("name", ["", "  ", "../x", "a/b", ".hidden", "x" * 61, "a\nb"])
def test_a_preset_name_cannot_lead_out_of_the_workspace(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="preset's name"):
        presets.save(Workspace(tmp_path), name, Config())
    assert not list(tmp_path.rglob("*.yaml"))


def test_an_unknown_preset_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no preset 'x'"):
        presets.find(Workspace(tmp_path), "x")

"""Presets: each shipped file is valid, holds only what differs, and what is saved comes back."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.unit.dataset_samples import write_picture
from trainer.config import Config
from trainer.config_io import PRESETS_DIR, dump_changes, parse_config, read_yaml
from trainer.errors import UserError
from trainer.planner import plan
from trainer.runs.store import Workspace
from ui import presets

SHIPPED = sorted(PRESETS_DIR.glob("*.yaml"))


GOALS = {"character", "anime character", "style", "object", "concept"}
IMAGE_SIDES = [(1600, 1200), (1024, 1024), (900, 1600)]


def shipped() -> list[presets.Preset]:
    return [preset for preset in presets.presets(Workspace(Path("/nowhere"))) if not preset.key.startswith(presets.OWN)]


def test_there_are_presets_for_every_goal_and_usual_memory() -> None:
    offered = {(preset.group, preset.goal, preset.gigabytes) for preset in shipped()}
    assert len(offered) == len(SHIPPED) >= 14
    assert {goal for _, goal, _ in offered} == GOALS
    assert {size for group, _, size in offered if group == "SD 1.5"} == {6, 8, 12}
    assert {size for group, _, size in offered if group == "SDXL"} == {8, 12, 24}


def test_they_are_listed_by_model_goal_and_memory() -> None:
    listed = [(preset.group, preset.goal, preset.gigabytes) for preset in shipped()]
    order = list(presets.GROUPS.values())
    assert listed == sorted(listed, key=lambda each: (order.index(each[0]), *each[1:]))
    assert all(preset.label.startswith(preset.group) for preset in shipped())
    assert all(f"{preset.gigabytes} GB" in preset.title for preset in shipped() if preset.gigabytes)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_preset_holds_only_what_differs(path: Path) -> None:
    given = read_yaml(path)
    assert given == yaml.safe_load(dump_changes(parse_config(given)))


@pytest.mark.parametrize("preset", [preset for preset in shipped() if preset.gigabytes], ids=lambda preset: preset.key)
def test_a_shipped_preset_fits_the_memory_in_its_name(preset: presets.Preset, tmp_path: Path) -> None:
    """By the plan's own estimate, with a twentieth left for the desktop, on pictures of the largest buckets."""
    for number, (width, height) in enumerate(IMAGE_SIDES):
        write_picture(tmp_path / f"{number}.png", width, height, number, "sks, a thing, in a place")
    values = read_yaml(preset.path)
    values.setdefault("dataset", {})["sources"] = [{"path": str(tmp_path)}]
    config = parse_config(values)
    found = plan(config)
    largest = max(bucket.width * bucket.height for bucket in found.buckets)
    assert largest > 0.9 * config.dataset.resolution**2  # type: ignore[operator]
    assert found.estimate.vram_bytes < 0.95 * preset.gigabytes * 2**30, found.estimate.vram_parts


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
    assert saved.label == "My own (v2)"
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

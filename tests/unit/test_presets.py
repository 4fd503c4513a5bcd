"""Presets: each shipped file is valid, holds only what differs, and what is saved comes back."""

from __future__ import annotations

import os
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


def test_a_preset_is_replaced_only_when_that_was_said(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    presets.save(workspace, "mine", Config())
    other = Config.model_validate({"lora": {"rank": 7}})
    with pytest.raises(UserError, match="a preset mine already"):
        presets.save(workspace, " mine ", other)
    assert presets.load(presets.find(workspace, "own/mine")) == Config()
    presets.save(workspace, "mine", other, replace=True)
    assert presets.load(presets.find(workspace, "own/mine")) == other


def test_a_renamed_preset_is_the_same_under_its_new_name(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    config = Config.model_validate({"lora": {"rank": 7}})
    first = presets.save(workspace, "first", config)
    presets.save(workspace, "second", Config())
    with pytest.raises(UserError, match="a preset second already"):
        presets.rename(workspace, first, "second")
    third = presets.rename(workspace, first, "third")
    assert (third.title, presets.load(third)) == ("third", config)
    assert [preset.key for preset in presets.presets(workspace) if preset.is_own] == ["own/second", "own/third"]


def test_a_deleted_preset_comes_back(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    assert presets.last_deleted(workspace) == ""
    config = Config.model_validate({"lora": {"rank": 7}})
    for name in ("old", "new"):
        presets.delete(workspace, presets.save(workspace, name, config))
    assert not [preset for preset in presets.presets(workspace) if preset.is_own]
    assert presets.last_deleted(workspace) == "new"
    assert presets.load(presets.bring_back(workspace, "new")) == config
    assert presets.last_deleted(workspace) == "old"
    presets.save(workspace, "old", Config())
    with pytest.raises(UserError, match="a new preset old"):
        presets.bring_back(workspace, "old")
    assert presets.load(presets.find(workspace, "own/old")) == Config()


@pytest.mark.parametrize("name", ["../mine", "", "deleted/../../x"])
def test_what_is_brought_back_is_looked_up_by_a_plain_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError):
        presets.bring_back(Workspace(tmp_path), name)


def test_shipped_presets_are_not_touched(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="came with the program"):
        presets.find_own(Workspace(tmp_path), "demo_style")


def test_a_file_of_another_machine_is_added_under_a_free_name(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    file = tmp_path / "St%yle: 1.yaml"
    file.write_text("lora: {rank: 7}")
    added = [presets.import_file(workspace, file) for _ in range(3)]
    assert [preset.title for preset in added] == ["St yle  1", "St yle  1 (2)", "St yle  1 (3)"]
    assert all(presets.load(preset).lora.rank == 7 for preset in added)
    file.write_text("lora: {rank: lots}")
    with pytest.raises(UserError, match=r"lora\.rank"):
        presets.import_file(workspace, file)


def write_own(workspace: Workspace, text: str) -> presets.Preset:
    path = workspace.dir / "presets" / "mine.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return presets.find(workspace, "own/mine")


def test_what_another_version_knew_is_left_out_and_told(tmp_path: Path) -> None:
    text = "lora: {rank: 7, rnak: 3}\ntrain: {seed: 5, optimizer: gone}\ngone: 3\n"
    config, left_out = presets.load_what_fits(write_own(Workspace(tmp_path), text))
    assert (config.lora.rank, config.train.seed, config.train.optimizer) == (7, 5, "adamw")
    assert {problem.field for problem in left_out} == {"lora.rnak", "train.optimizer", "gone"}


@pytest.mark.parametrize(
    "text", ["version: 99", "train: {lr_power: 2}", "a: [", "loss: {min_timestep: 9, max_timestep: 3}"]
)
def test_a_preset_that_cannot_be_used_at_all_is_told(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError):
        presets.load_what_fits(write_own(Workspace(tmp_path), text))


def test_a_changed_file_is_read_anew(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    assert presets.load_what_fits(write_own(workspace, "lora: {rank: 7}"))[0].lora.rank == 7
    preset = write_own(workspace, "lora: {rank: 8}")
    os.utime(preset.path, ns=(1, 1))
    assert presets.load_what_fits(preset)[0].lora.rank == 8


def test_name_and_folders_are_the_users_unless_the_preset_has_its_own(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    assert presets.own_settings(write_own(workspace, "lora: {rank: 7}")) == {"name", "dataset.sources"}
    assert presets.own_settings(write_own(workspace, "name: x\ndataset: {sources: [{path: /a}]}")) == set()

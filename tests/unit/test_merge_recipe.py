"""A merge keeps its recipe in the file, complete enough to do it again; what others write there does no harm."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.unit.lora_samples import lora as sample_lora
from trainer.lora.contents import lora_contents
from trainer.lora.file import read_lora, write_lora
from trainer.lora.hashes import file_sha256
from trainer.lora.merge_files import LoraMerge, merge_lora_files
from trainer.lora.merge_recipe import MERGE_KEY, Ingredient, Recipe, read_recipe
from trainer.lora.merge_settings import MergeSettings
from trainer.lora.strengths import parse_strength
from trainer.runs.store import Workspace
from ui.lora_choices import RowUse
from ui.lora_tools.merging import how_updates
from ui.lora_tools.recipes import find_sources, recipe_rows


class Silent:
    """Hears no events."""

    def emit(self, kind: str, step: int = 0, **fields: object) -> None:
        return


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    workspace = Workspace(tmp_path / "workspace")
    workspace.models_dir.mkdir(parents=True)
    for seed, name in enumerate(("ink", "line")):
        write_lora(workspace.models_dir / f"{name}.safetensors", sample_lora(4, seed=seed), precision="float")
    return workspace


def merged(workspace: Workspace, settings: MergeSettings, name: str = "both") -> Path:
    folder = workspace.models_dir
    loras = [
        (folder / "ink.safetensors", parse_strength("0.8,text_encoder:0,unet.down_blocks:1.5")),
        (folder / "line.safetensors", parse_strength("-0.3")),
    ]
    out = folder / f"{name}.safetensors"
    merge_lora_files(LoraMerge(loras, out, settings), events=Silent())
    return out


def test_a_merge_can_be_done_again_from_its_recipe(workspace: Workspace) -> None:
    settings = MergeSettings("dare", rank=3, conv_rank=2, density=0.25, seed=9)
    out = merged(workspace, settings)
    recipe = read_recipe(lora_contents(out).metadata)
    assert recipe is not None and recipe.settings == settings
    assert [each.sha256 for each in recipe.ingredients] == [
        file_sha256(workspace.models_dir / f"{name}.safetensors") for name in ("ink", "line")
    ]
    rows, notes = find_sources(workspace, recipe)
    assert notes == [] and [(Path(row.file).stem, row.weight, row.parts) for row in rows] == [
        ("ink", 0.8, "text_encoder:0,unet.down_blocks:1.5"),
        ("line", -0.3, ""),
    ]
    strengths = [(Path(row.file), parse_strength(f"{row.weight},{row.parts}".rstrip(","))) for row in rows]
    again = workspace.models_dir / "again.safetensors"
    merge_lora_files(LoraMerge(strengths, again, recipe.settings), events=Silent())
    first, second = read_lora(out), read_lora(again)
    assert all(torch.equal(first.layers[key].delta(), second.layers[key].delta()) for key in first.layers)
    assert first.metadata[MERGE_KEY] == second.metadata[MERGE_KEY]
    shown = how_updates(recipe.settings)
    assert shown[0] == "lora" and [each["value"] for each in shown[1:]] == ["dare", 3, 2, 0.25, 9, False]
    assert all(each["visible"] for each in shown[1:])


def test_in_words(workspace: Workspace) -> None:
    recipe = read_recipe(lora_contents(merged(workspace, MergeSettings("svd", rank=3))).metadata)
    assert recipe is not None and recipe.kept is not None and recipe.kept[1] <= recipe.kept[0] <= 1
    told = f"{recipe.kept[0]:.2%} of its squared norm, {recipe.kept[1]:.2%} in the layer that lost most"
    assert recipe_rows(recipe) == [
        ("Merged", "svd, rank 3"),
        ("of ink", "0.8, text_encoder:0, unet.down_blocks:1.5"),
        ("of line", "-0.3"),
        ("Kept of the change", told),
    ]
    exact = read_recipe(lora_contents(merged(workspace, MergeSettings(), "exact")).metadata)
    assert exact is not None and exact.kept is None


def test_sources_that_are_gone_or_another_file(workspace: Workspace) -> None:
    recipe = read_recipe(lora_contents(merged(workspace, MergeSettings())).metadata)
    assert recipe is not None
    (workspace.models_dir / "ink.safetensors").unlink()
    write_lora(workspace.models_dir / "line.safetensors", sample_lora(2, seed=8), precision="float")
    rows, notes = find_sources(workspace, recipe)
    assert [Path(row.file).stem for row in rows] == ["line"]
    assert notes == [
        "ink.safetensors is not on this machine",
        "line.safetensors is another file than the one that was merged",
    ]
    unknown = Recipe([Ingredient("line.safetensors", parse_strength("1"), "")], MergeSettings())
    assert find_sources(workspace, unknown) == (
        [RowUse(str(workspace.models_dir / "line.safetensors"), 1.0, "")],
        [],
    )


GOOD = {"mode": "exact", "files": ["a.safetensors"], "ratios": [1]}


@pytest.mark.parametrize(
    "wrong",
    [
        "", "{half", "[]", "[" * 100_000, '"text"', "{" + " " * 300_000 + "}",
        *(
            json.dumps(GOOD | each)
            for each in (
                {"mode": "model"}, {"files": []}, {"files": ["a"] * 100}, {"ratios": []}, {"ratios": ["nan"]},
                {"ratios": ["1,nowhere:2"]}, {"rank": 0}, {"density": 2}, {"files": "a"}, {"ratios": [None]},
                {"kept_energy": {"mean": 2, "smallest": 0}},
            )
        ),
    ],
)  # fmt: skip
def test_what_is_no_recipe(wrong: str) -> None:
    assert read_recipe({MERGE_KEY: json.dumps(GOOD)}) is not None
    assert read_recipe({MERGE_KEY: wrong}) is None
    assert read_recipe({}) is None

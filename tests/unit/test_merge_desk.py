"""Asking for merges and pictures from the page: what is refused, in what order, and what the command is told."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from tests.unit.lora_samples import QUERY, TEXT, linear
from tests.unit.lora_samples import lora as sample_lora
from trainer.config import Config
from trainer.errors import UserError
from trainer.lora.file import LoraFile, LoraLayer, write_lora
from trainer.lora.merge import merge_loras
from trainer.lora.strengths import Strength
from trainer.pictures import LoraUse
from trainer.runs.store import Workspace
from ui.context import AppContext
from ui.generate.desk import settings_like
from ui.lora_choices import RowUse, check_loras, check_model, known_loras, known_models
from ui.lora_tools import plans
from ui.lora_tools.desk import ToolDesk
from ui.lora_tools.merge_orders import Merge, merge_command, merge_order, merge_plan, merge_report
from ui.run_view import file_size


@pytest.fixture
def context(tmp_path: Path) -> AppContext:
    return AppContext(Workspace(tmp_path / "workspace"))


@pytest.fixture
def lora(context: AppContext) -> LoraUse:
    path = context.workspace.models_dir / "a.safetensors"
    path.parent.mkdir(parents=True)
    write_lora(path, sample_lora(4), precision="float")
    return LoraUse(path=str(path), weight=-0.1)


def merge(lora: LoraUse, **changes: object) -> Merge:
    return Merge.model_validate({"loras": [lora], "target": "lora", "model": "demo", "name": "m"} | changes)


def test_commands(lora: LoraUse) -> None:
    out = Path("/o/m.safetensors")
    pair = ["merge", "--lora", f"{lora.path}=-0.1", "--out", str(out)]
    assert merge_command(merge(lora), out) == [*pair, "--mode", "exact"]
    svd = {"mode": "svd", "rank": 4}
    assert merge_command(merge(lora, **svd), out) == [*pair, "--mode", "svd", "--rank", "4"]
    dare = merge(lora, mode="dare", rank=4, conv_rank=2, density=0.5, seed=7, save_precision="fp16", replace=True)
    assert merge_command(dare, out) == [
        *pair, "--overwrite", "--save-precision", "fp16", "--mode", "dare", "--rank", "4", "--conv-rank", "2",
        "--density", "0.5", "--seed", "7",
    ]  # fmt: skip
    assert merge_command(merge(lora, target="folder", **svd), out) == [*pair, "--base", "demo"]
    by_part = merge(LoraUse(path=lora.path, weight=1, parts="text_encoder:0"))
    assert merge_command(by_part, out)[2] == f"{lora.path}=1,text_encoder:0"


def test_a_dora_is_merged_with_its_model(context: AppContext) -> None:
    layer = linear(4, 2.0, seed=1)
    magnitude = torch.ones(10, 1)
    dora = LoraLayer(layer.down, layer.up, layer.alpha, magnitude=magnitude)
    path = context.workspace.models_dir / "dora.safetensors"
    path.parent.mkdir(parents=True)
    write_lora(path, LoraFile({QUERY: dora}, {}), precision="float")
    command = merge_command(merge(LoraUse(path=str(path))), Path("/o/m.safetensors"))
    assert command[-2:] == ["--dora-base", "demo"]


def test_every_problem_at_once_and_nothing_overwritten(context: AppContext, lora: LoraUse) -> None:
    desk = ToolDesk(context.workspace, "merge", merge_report)
    with pytest.raises(UserError) as error:
        desk.start(merge_order(context.workspace, merge(lora, loras=[], mode="svd", name="../m")))
    assert [problem.code for problem in error.value.problems] == ["merge.no_loras", "merge.rank", "name.wrong"]
    with pytest.raises(UserError, match="exists already"):
        desk.start(merge_order(context.workspace, merge(lora, name="a")))
    assert desk.standing().version == ""


def test_the_plan_tells_what_comes_out(context: AppContext, lora: LoraUse) -> None:
    other = context.workspace.models_dir / "b.safetensors"
    kept = {key: layer for key, layer in sample_lora(6, seed=9).layers.items() if key != TEXT}
    write_lora(other, LoraFile(kept, {}), precision="float")
    both = [LoraUse(path=lora.path, parts="text_encoder:0"), LoraUse(path=str(other), weight=0.5)]
    told = text_of(merge_plan(context.workspace, merge(lora, loras=both)))
    assert "a LoRA 4 2 of 3 1, text_encoder 0" in told
    assert "b LoRA 6 2 of 2 0.5" in told
    assert "Layers 2, 2 of them from more than one" in told
    assert "Rank 10" in told
    assert "Rank 5" in text_of(merge_plan(context.workspace, merge(lora, loras=both, mode="svd", rank=5)))
    model = text_of(merge_plan(context.workspace, merge(lora, loras=both, target="file", name="a")))
    assert "Layers changed 2" in model
    assert "a.safetensors, which exists already" in model
    assert merge_plan(context.workspace, merge(lora, loras=[])) == ""
    with pytest.raises(UserError, match=r"has no unet\.up_blocks\.3"):
        merge_plan(context.workspace, merge(LoraUse(path=lora.path, parts="unet.up_blocks.3:1")))


def test_the_size_told_is_the_size_that_comes(context: AppContext, lora: LoraUse) -> None:
    wide = LoraFile({QUERY: linear(16, 8.0, seed=1, inputs=9000, outputs=9000)}, {})
    write_lora(Path(lora.path), wide, precision="fp16")
    out = context.workspace.models_dir / "sum.safetensors"
    write_lora(out, merge_loras([(wide, 1.0), (wide, 0.5)]), precision="fp16")
    use = plans.planned(lora.path, Strength())
    told = dict(plans.merged_lora([use, use], "exact", None))["Size"]
    assert told == f"about {file_size(out.stat().st_size)}"


def test_families_are_not_mixed_in_silence(context: AppContext, lora: LoraUse) -> None:
    paths = []
    for name, version in (("one", "sd_v1"), ("two", "sdxl_base_v1-0")):
        paths.append(context.workspace.models_dir / f"{name}.safetensors")
        write_lora(paths[-1], sample_lora(ss_base_model_version=version), precision="float")
    told = merge_plan(context.workspace, merge(lora, loras=[LoraUse(path=str(path)) for path in paths]))
    assert "one is for sd1 and two is for sdxl" in told


def text_of(page: str) -> str:
    """HTML without its tags."""
    return " ".join(re.sub(r"<[^>]+>", " ", page).split())


def test_files_must_be_open_to_the_page(context: AppContext, lora: LoraUse, tmp_path: Path) -> None:
    outside = tmp_path / "outside.safetensors"
    outside.write_bytes(b"x")
    assert check_loras(context, [RowUse(lora.path, 0.5)]) == [LoraUse(path=lora.path, weight=0.5)]
    with pytest.raises(UserError) as error:
        check_loras(context, [RowUse(str(outside), 1.0), RowUse(lora.path + "x", 1.0), RowUse(lora.path, 1, "unet:x")])
    assert [problem.field for problem in error.value.problems] == ["loras.0.path", "loras.1.path", "loras.2.parts"]
    assert check_model(context, "demo") == "demo"
    assert check_model(context, "owner/name") == "owner/name"
    single_file = context.workspace.models_dir / "merged.safetensors"
    single_file.write_bytes(b"x")
    assert check_model(context, str(single_file)) == str(single_file)
    other = context.workspace.models_dir / "notes.txt"
    other.write_bytes(b"x")
    for wrong in ("", str(other), str(tmp_path), "../../etc", str(context.workspace.dir / "missing")):
        with pytest.raises(UserError):
            check_model(context, wrong)


def test_what_is_offered(context: AppContext, lora: LoraUse) -> None:
    run = context.workspace.create_run(Config(name="neon", model={"base": "owner/name"}))
    run.output_path.write_bytes(b"x")
    saved = run.checkpoints_dir / "step-000050" / "lora.safetensors"
    saved.parent.mkdir()
    saved.write_bytes(b"x")
    assert [path for _, path in known_loras(context.workspace)] == [lora.path, str(run.output_path), str(saved)]
    assert known_loras(context.workspace)[2][0].startswith("neon, step 50 · ")
    assert known_models(context.workspace) == [("Built-in demo model", "demo"), ("owner/name", "owner/name")]


def test_a_runs_own_preview_settings() -> None:
    assert settings_like(Config()) is None
    config = Config.model_validate(
        {"samples": {"prompts": [{"prompt": "star", "steps": 9}]}, "train": {"clip_skip": 2}}
    )
    found = settings_like(config)
    assert found is not None and (found.prompt, found.steps, found.clip_skip, found.model) == ("star", 9, 2, "demo")

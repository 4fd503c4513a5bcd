"""Asking for merges and pictures from the page: what is refused, in what order, and what the command is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainer.config import Config
from trainer.errors import UserError
from trainer.pictures import LoraUse, PictureSettings
from trainer.runs.store import Workspace
from trainer.studio import Studio
from ui.context import AppContext
from ui.generate_desk import GenerateDesk, settings_like
from ui.lora_choices import check_loras, check_model, known_loras, known_models
from ui.merge_desk import Merge, MergeDesk, merge_command
from ui.tabs.merge import Moves


@pytest.fixture
def context(tmp_path: Path) -> AppContext:
    return AppContext(Workspace(tmp_path / "workspace"))


@pytest.fixture
def lora(context: AppContext) -> LoraUse:
    path = context.workspace.models_dir / "a.safetensors"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"x")
    return LoraUse(path=str(path), weight=-0.1)


def merge(lora: LoraUse, **changes: object) -> Merge:
    return Merge.model_validate({"loras": [lora], "target": "lora", "model": "demo", "name": "m"} | changes)


def test_a_later_move_is_not_undone_by_an_earlier_one() -> None:
    moves = Moves()
    assert [moves.is_news(stamp) for stamp in ("a|5", "a|9", "a|7", "b|1", "a|9.5")] == [True, True, False, True, True]
    assert moves.is_news("")
    for number in range(500):
        moves.is_news(f"page{number}|1")
    assert len(moves._newest) == Moves.MOST_PAGES


def test_commands(lora: LoraUse) -> None:
    out = Path("/o/m.safetensors")
    pair = ["merge", "--lora", f"{lora.path}=-0.1", "--out", str(out)]
    assert merge_command(merge(lora), out) == [*pair, "--mode", "exact"]
    assert merge_command(merge(lora, mode="svd", rank=4), out) == [*pair, "--mode", "svd", "--rank", "4"]
    assert merge_command(merge(lora, target="model", mode="svd", rank=4), out) == [*pair, "--base", "demo"]


def test_every_problem_at_once_and_nothing_overwritten(context: AppContext, lora: LoraUse) -> None:
    desk = MergeDesk(context.workspace)
    with pytest.raises(UserError) as error:
        desk.save(merge(lora, loras=[], mode="svd", name="../m"))
    assert [problem.code for problem in error.value.problems] == ["merge.no_loras", "merge.rank", "merge.name"]
    with pytest.raises(UserError, match="exists already"):
        desk.save(merge(lora, name="a"))
    assert desk.state() == ("", "", False)


def test_files_must_be_open_to_the_page(context: AppContext, lora: LoraUse, tmp_path: Path) -> None:
    outside = tmp_path / "outside.safetensors"
    outside.write_bytes(b"x")
    assert check_loras(context, [(lora.path, 0.5)]) == [LoraUse(path=lora.path, weight=0.5)]
    with pytest.raises(UserError) as error:
        check_loras(context, [(str(outside), 1.0), (lora.path + "x", 1.0)])
    assert [problem.field for problem in error.value.problems] == ["loras.0.path", "loras.1.path"]
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


class QuietStudio(Studio):
    """Starts no process."""

    def ensure(self) -> None:
        return


def test_the_form_is_remembered_and_seeds_are_drawn(context: AppContext) -> None:
    desk = GenerateDesk(QuietStudio(context.workspace, 1))
    assert desk.answer() == (None, 0)
    kept = desk.ask(PictureSettings.model_validate({"prompt": "a", "seed": 5}), new_seed=False)
    drawn = desk.ask(PictureSettings.model_validate({"prompt": "b", "seed": 5}), new_seed=True)
    assert (kept.seed, drawn.seed == 5) == (5, False)
    assert (desk.last().settings.prompt, desk.last().settings.seed, desk.last().new_seed) == ("b", drawn.seed, True)
    answer, waiting = desk.answer()
    assert answer is not None and (answer.state, waiting) == ("waiting", 2)
    (context.workspace.dir / "last_generate.json").write_text("{half")
    assert desk.last().settings.prompt == ""


def test_a_runs_own_preview_settings() -> None:
    assert settings_like(Config()) is None
    config = Config.model_validate(
        {"samples": {"prompts": [{"prompt": "star", "steps": 9}]}, "train": {"clip_skip": 2}}
    )
    found = settings_like(config)
    assert found is not None and (found.prompt, found.steps, found.clip_skip, found.model) == ("star", 9, 2, "demo")

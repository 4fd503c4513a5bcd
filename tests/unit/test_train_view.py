"""What the Train tab says, and which files a config may name."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainer.config import Config
from trainer.errors import UserError
from trainer.runs.store import Workspace
from ui import train_view
from ui.context import AppContext


@pytest.fixture
def context(tmp_path: Path) -> AppContext:
    (tmp_path / "workspace/pictures").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    return AppContext(Workspace((tmp_path / "workspace").resolve()))


def config(path: Path | str, **more: object) -> Config:
    return Config.model_validate({"dataset": {"sources": [{"path": str(path)}]}, **more})


def problems_of(context: AppContext, config: Config) -> dict[str, str]:
    with pytest.raises(UserError) as caught:
        train_view.check_paths(context, config)
    return {problem.field: problem.code for problem in caught.value.problems}


def test_folders_of_the_workspace_are_fine(context: AppContext) -> None:
    train_view.check_paths(context, config(context.workspace.dir / "pictures"))


def test_a_base_model_may_be_a_file_that_is_there(context: AppContext) -> None:
    file = context.workspace.models_dir / "model.safetensors"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"x")
    pictures = context.workspace.dir / "pictures"
    train_view.check_paths(context, config(pictures, model={"base": str(file), "vae": str(file)}))
    gone = config(pictures, model={"base": str(file.with_name("gone.ckpt"))})
    assert problems_of(context, gone) == {"model.base": "path.missing"}


def test_all_wrong_places_are_told_at_once(context: AppContext, tmp_path: Path) -> None:
    wrong = config(
        tmp_path / "outside",
        model={"base": "/etc/model", "vae": "../vae"},
        lora={
            "init_from": str(context.workspace.dir / "gone.safetensors"),
            "merge_before_training": [{"path": "/etc/a.safetensors"}],
        },
    )
    assert problems_of(context, wrong) == {
        "dataset.sources.0.path": "path.not_allowed",
        "model.base": "path.not_allowed",
        "model.vae": "path.not_allowed",
        "lora.init_from": "path.missing",
        "lora.merge_before_training.0.path": "path.not_allowed",
    }


def test_a_way_out_of_the_workspace_is_refused(context: AppContext) -> None:
    sneaky = config(f"{context.workspace.dir}/pictures/../../outside")
    assert problems_of(context, sneaky) == {"dataset.sources.0.path": "path.not_allowed"}
    (context.workspace.dir / "link").symlink_to("/etc")
    assert problems_of(context, config(context.workspace.dir / "link")) == {
        "dataset.sources.0.path": "path.not_allowed"
    }


def test_no_folder_at_all(context: AppContext) -> None:
    assert problems_of(context, Config()) == {"dataset.sources.0.path": "dataset.no_sources"}


@pytest.mark.parametrize("model", ["demo", "stable-diffusion-v1-5/stable-diffusion-v1-5"])
def test_hub_names_are_no_paths(model: str) -> None:
    assert not train_view.looks_like_a_path(model)


@pytest.mark.parametrize(
    "model", ["/models/x", "./x", "~/x", "../x", "a/b/c", r"C:\models", "models/a.safetensors", "b.ckpt"]
)
def test_paths_are_paths(model: str) -> None:
    assert train_view.looks_like_a_path(model)


def test_the_last_form_comes_back_and_damage_is_forgiven(context: AppContext) -> None:
    assert train_view.read_last_form(context) == {}
    train_view.save_last_form(context, {"train.seed": ["fast"], "dataset.sources": ["/a", True]})
    assert train_view.read_last_form(context) == {"train.seed": ["fast"], "dataset.sources": ["/a", True]}
    for damage in ["[1, 2", "- list", ""]:
        (context.workspace.dir / train_view.LAST_FORM).write_text(damage)
        assert train_view.read_last_form(context) == {}


def test_the_command_line_is_quoted() -> None:
    named = Config(name="my lora; rm")
    line = train_view.command_line(named, Path("/work space"))
    assert line == "./launch.sh trainer train 'my lora; rm.yaml' --workspace '/work space'"


def test_the_live_line(context: AppContext) -> None:
    folder = context.workspace.dir / "pictures"
    assert "Choose a folder" in train_view.maths_html(Config())
    for number in range(10):
        (folder / f"{number}.png").touch()
    assert "<strong>1000 steps</strong>, about 100 passes" in train_view.maths_html(config(folder))


def test_the_last_preset_is_remembered_while_it_is_there(context: AppContext) -> None:
    assert train_view.last_preset(context) is None
    train_view.save_last_preset(context, "demo_style")
    preset = train_view.last_preset(context)
    assert preset is not None and preset.key == "demo_style"
    for gone in ("own/deleted", "../x", ""):
        train_view.save_last_preset(context, gone)
        assert train_view.last_preset(context) is None


def test_a_run_whose_settings_are_changed_takes_the_presets_place(context: AppContext) -> None:
    run = context.workspace.create_run(Config())
    train_view.save_last_preset(context, "demo_style")
    assert (train_view.changed_run(context), train_view.key_beside_runs(context)) == (None, "demo_style")
    train_view.save_last_form(context, {"train.seed": ["1"]})
    train_view.keep_before(context)
    train_view.save_last_preset(context, train_view.key_of_run(run))
    assert train_view.changed_run(context) == run and train_view.last_preset(context) is None
    assert train_view.key_beside_runs(context) == ""
    train_view.take_before(context)
    assert train_view.changed_run(context) is None and train_view.last_preset(context) is not None
    train_view.take_before(context)
    assert train_view.changed_run(context) == run
    for gone in ("run/gone", "run/../runs", "run/"):
        train_view.save_last_preset(context, gone)
        assert train_view.changed_run(context) is None


def test_replacing_the_form_twice_keeps_what_stood_there_first(context: AppContext) -> None:
    train_view.save_last_form(context, {"train.seed": ["1"]})
    for _ in range(2):  # a list tells a choice twice
        train_view.replace_form(context, {"train.seed": ["2"]}, "demo_style")
    assert train_view.take_before(context) == {"train.seed": ["1"]}

"""Relative paths in configs: meant from the config file's folder, full in the run's own config."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any, Union, get_args, get_origin

import pytest
import yaml
from pydantic import BaseModel

from trainer.config import Config
from trainer.config_io import load_config, parse_config
from trainer.config_paths import PATH_FIELDS, config_with_full_paths, paths_in, with_full_paths
from trainer.runs.store import Workspace


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A config's folder with what it names; the current folder is another one."""
    folder = tmp_path / "project"
    for name in ("pictures", "masks", "held-back", "owner/model"):
        (folder / name).mkdir(parents=True)
    for name in ("base.safetensors", "vae.safetensors", "first.safetensors", "second.safetensors", "captions.json"):
        (folder / name).touch()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    return folder


def every_path() -> dict[str, Any]:
    return {
        "model": {"base": "base.safetensors", "vae": "./vae.safetensors"},
        "dataset": {"sources": [{"path": "pictures", "metadata_file": "captions.json", "mask_path": "masks"}]},
        "loss": {"masked": "mask"},
        "lora": {
            "init_from": "first.safetensors",
            "merge_before_training": [{"path": "../project/second.safetensors"}],
        },
        "validation": {"path": "held-back"},
    }


def loaded(folder: Path, values: dict[str, Any], overrides: list[str] | None = None) -> Config:
    (folder / "config.yaml").write_text(yaml.safe_dump(values))
    return load_config(folder / "config.yaml", overrides)


def paths(config: Config) -> dict[str, str]:
    return dict(paths_in(config.model_dump(mode="json")))


def test_every_relative_path_starts_at_the_config_file(project: Path) -> None:
    given = paths(loaded(project, every_path()))
    assert given == {
        "model.base": str(project / "base.safetensors"),
        "model.vae": str(project / "vae.safetensors"),
        "dataset.sources.0.path": str(project / "pictures"),
        "dataset.sources.0.metadata_file": str(project / "captions.json"),
        "dataset.sources.0.mask_path": str(project / "masks"),
        "validation.path": str(project / "held-back"),
        "lora.init_from": str(project / "first.safetensors"),
        "lora.merge_before_training.0.path": str(project / "second.safetensors"),
    }
    assert {name.replace(".0.", ".*.") for name in given} == set(PATH_FIELDS)


def test_a_config_given_by_a_relative_path(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded(project, every_path())
    monkeypatch.chdir(project.parent)
    assert load_config(Path("project/config.yaml")).model.base == str(project / "base.safetensors")


@pytest.mark.parametrize("base", ["demo", "stabilityai/sdxl", "one-word"])
def test_names_that_are_no_paths_stay(project: Path, base: str) -> None:
    assert loaded(project, {"model": {"base": base}}).model.base == base
    sources = [{"path": "hf://datasets/owner/name"}]
    assert loaded(project, {"dataset": {"sources": sources}}).dataset.sources[0].path == sources[0]["path"]


def test_a_folder_that_is_there_is_meant_rather_than_the_hub(project: Path) -> None:
    assert loaded(project, {"model": {"base": "owner/model"}}).model.base == str(project / "owner" / "model")


@pytest.mark.parametrize("base", ["missing.safetensors", "./owner/name", "../x", "a/b/c"])
def test_a_path_to_nothing_is_told_by_its_full_name(project: Path, base: str) -> None:
    assert loaded(project, {"model": {"base": base}}).model.base == str((project / base).resolve())


def test_home_and_full_paths(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(project))
    monkeypatch.setenv("USERPROFILE", str(project))
    assert loaded(project, {"model": {"base": "~/base.safetensors"}}).model.base == str(project / "base.safetensors")
    full = str(project / "first.safetensors")
    assert loaded(project, {"lora": {"init_from": full}}).lora.init_from == full


def test_overrides_start_where_the_command_runs(project: Path) -> None:
    (Path.cwd() / "base.safetensors").touch()
    given = loaded(project, every_path(), ["model.base=base.safetensors", "lora.init_from=mine.safetensors"])
    assert given.model.base == str(Path.cwd() / "base.safetensors")
    assert given.lora.init_from == str(Path.cwd() / "mine.safetensors")
    assert given.model.vae == str(project / "vae.safetensors")


def test_paths_of_older_runs_that_started_at_the_current_folder_go_on(project: Path) -> None:
    (Path.cwd() / "mine.safetensors").touch()
    assert loaded(project, {"lora": {"init_from": "mine.safetensors"}}).lora.init_from == str(
        Path.cwd() / "mine.safetensors"
    )


def test_a_run_keeps_full_paths(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)  # as from the page, whose paths start where it runs
    run = Workspace(tmp_path / "workspace").create_run(parse_config(every_path()))
    stored = yaml.safe_load(run.config_path.read_text())
    monkeypatch.chdir(tmp_path)
    named = dict(paths_in(stored))
    assert len(named) == len(PATH_FIELDS) and all(Path(path).is_absolute() for path in named.values())
    assert run.config().model.base == str(project / "base.safetensors")


def test_wrong_values_are_left_to_the_check(project: Path) -> None:
    for values in ({"dataset": {"sources": "pictures"}}, {"model": None}, {"dataset": {"sources": [7]}}, {"lora": []}):
        assert with_full_paths(values, project) == values
    config = parse_config({"model": {"base": "demo"}})
    assert config_with_full_paths(config, project) is config


def test_no_setting_that_names_a_file_is_forgotten() -> None:
    named = {name for name in fields_of(Config) if name.rpartition(".")[2] in ("path", "mask_path", "metadata_file")}
    told = {
        name
        for name, about in fields_of(Config).items()
        if about.startswith(("A folder", "Folder ", "The file", "A LoRA file", "File, folder", "A kohya JSON"))
    }
    assert {*named, *told, "model.base"} == set(PATH_FIELDS)


def fields_of(model: type[BaseModel], prefix: str = "") -> dict[str, str]:
    """What every setting says about itself, by dotted name."""
    found: dict[str, str] = {}
    for name, info in model.model_fields.items():
        section, many = section_in(info.annotation)
        if section is None:
            found[f"{prefix}{name}"] = info.description or ""
        else:
            found |= fields_of(section, f"{prefix}{name}.*." if many else f"{prefix}{name}.")
    return found


def section_in(annotation: Any) -> tuple[type[BaseModel] | None, bool]:
    if get_origin(annotation) is list and isinstance(get_args(annotation)[0], type):
        inner = get_args(annotation)[0]
        return (inner, True) if issubclass(inner, BaseModel) else (None, False)
    if get_origin(annotation) in (Union, types.UnionType):
        sections = [section_in(each) for each in get_args(annotation)]
        return next((found for found in sections if found[0]), (None, False))
    return (annotation, False) if isinstance(annotation, type) and issubclass(annotation, BaseModel) else (None, False)

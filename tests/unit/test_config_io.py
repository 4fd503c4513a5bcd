"""Reading and writing configs, and what the user is told about a wrong one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from trainer.config import Config
from trainer.config_io import (
    apply_override,
    dump_changes,
    dump_config,
    load_config,
    parse_config,
    read_yaml,
    save_config,
)
from trainer.errors import Problem, UserError


def _problems(text: str, folder: Path, overrides: list[str] | None = None) -> tuple[Problem, ...]:
    path = folder / "config.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        load_config(path, overrides)
    return caught.value.problems


def _problem(text: str, folder: Path) -> Problem:
    problems = _problems(text, folder)
    assert len(problems) == 1
    return problems[0]


@pytest.mark.parametrize(
    ("text", "field", "message", "hint"),
    [
        ("lora: {rnk: 4}", "lora.rnk", "lora.rnk is not a setting", "Did you mean lora.rank?"),
        ("train: {lr: 1}", "train.lr", "not a setting", "Did you mean train.learning_rate?"),
        ("train: {network_dim: 4}", "train.network_dim", "not a setting", "Did you mean lora.rank?"),
        ("rank: 4", "rank", "not a setting", "Did you mean lora.rank?"),
        ("samples: {prompts: [{promt: a}]}", "samples.prompts.0.promt", "not a setting", "prompts.0.prompt?"),
        ("loss: {multires_noise: {iteration: 1}}", "loss.multires_noise.iteration", "not a", "noise.iterations?"),
        ("zzz: 1", "zzz", "zzz is not a setting", "Remove it"),
        ("1: 2", "1", "1 is not a setting", "Remove it"),
        ("lora: {rank: 0}", "lora.rank", "lora.rank: 0 is not allowed; allowed is 1 or more", "Correct"),
        ("lora: {rank: 16.5}", "lora.rank", "allowed is a whole number", "Correct"),
        ("lora: {rank: yes}", "lora.rank", "true is not allowed", ""),
        ("lora: 5", "lora", "lora: 5 is not allowed; allowed is a section", "Correct"),
        ("lora: {include: ['[']}", "lora.include", "'[' is not a regular expression", ""),
        ("dataset: {resolution: 100}", "dataset.resolution", "100 is not a multiple of 8", "Use 96 or 104."),
        ("dataset: {resolution: [512, 700]}", "dataset.resolution.1", "700 is not a multiple", "Use 696 or 704."),
        ("dataset: {resolution: [[512, 700]]}", "dataset.resolution.0.1", "700 is not a multiple", "Use 696"),
        ("dataset: {resolution: [[512]]}", "dataset.resolution.0.1", "is missing", "Add it."),
        ("dataset: {resolution: big}", "dataset.resolution", "'big' is not allowed; allowed is a whole number", ""),
        (
            "dataset: {resolution: null}",
            "dataset.resolution",
            "null is not allowed; allowed is a whole number or a",
            "",
        ),
        ("dataset: {resolution: 8}", "dataset.resolution", "allowed is 64 or more", "Correct"),
        ("dataset: {sources: [{repeats: 2}]}", "dataset.sources.0.path", "is missing", "Add it."),
        ("dataset: {sources: x}", "dataset.sources", "allowed is a list", "Correct"),
        ("train: {learning_rate: fast}", "train.learning_rate", "'fast' is not allowed; allowed is a number", ""),
        ("train: {learning_rate: .nan}", "train.learning_rate", "nan is not allowed; allowed is a finite", ""),
        (
            "train: {lr_warmup_steps: 1.5}",
            "train.lr_warmup_steps",
            "1.5 is neither a whole number of steps nor a share",
            "",
        ),
        ("train: {lr_decay_steps: .inf}", "train.lr_decay_steps", "inf is neither", ""),
        ("train: {optimizer: adam}", "train.optimizer", "allowed is 'adamw', 'adamw8bit', 'paged_adamw',", ""),
        ("loss: {min_timestep: 9, max_timestep: 3}", "loss", "min_timestep (9) must be below max_timestep (3)", ""),
        ("name: a/b", "name", "must work as a file name", ""),
        ("version: 2", "version", "written by a newer LoRA Atelier; this one reads up to 1", "Update the program"),
        ("trackers: [mlflow]", "trackers.0", "allowed is 'tensorboard', 'wandb' or 'trackio'", ""),
    ],
)
def test_one_problem_is_told_once_with_field_value_and_remedy(
    tmp_path: Path, text: str, field: str, message: str, hint: str
) -> None:
    problem = _problem(text, tmp_path)
    assert problem.field == field
    assert message in problem.message
    assert hint in problem.hint


def test_all_problems_come_at_once_in_the_configs_order(tmp_path: Path) -> None:
    text = (
        "output: {precision: fp8}\ntrain: {learning_rate: fast}\nlora: {rank: 0, rnak: 1}\ndataset: {resolution: 100}"
    )
    fields = [problem.field for problem in _problems(text, tmp_path)]
    assert fields == ["dataset.resolution", "lora.rank", "lora.rnak", "train.learning_rate", "output.precision"]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("- a", "config.not_a_mapping"),
        ("5", "config.not_a_mapping"),
        ("just words", "config.not_a_mapping"),
        ("a: [", "config.yaml"),
        ("a: !!python/object/apply:os.system [ls]", "config.yaml"),
        ("? [a, b]\n: 1", "config.yaml"),
        ("x: " + "[" * 5000, "config.yaml"),
    ],
)
def test_files_that_are_no_configs(tmp_path: Path, text: str, code: str) -> None:
    assert _problem(text, tmp_path).code == code


def test_yaml_mistakes_are_told_with_their_line(tmp_path: Path) -> None:
    assert "line 3" in _problem("name: a\ntrain:\n  x: [\n", tmp_path).message or "line 4" in str(
        _problem("name: a\ntrain:\n  x: [\n", tmp_path)
    )


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.yaml"):
        with pytest.raises(UserError, match="cannot be read"):
            read_yaml(path)
    (tmp_path / "latin.yaml").write_bytes(b"name: caf\xe9")
    with pytest.raises(UserError, match="cannot be read"):
        read_yaml(tmp_path / "latin.yaml")


def test_an_empty_file_is_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("")
    assert load_config(tmp_path / "a.yaml") == Config()


def test_dataset_folders_are_taken_from_the_configs_own_folder(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("dataset: {sources: [{path: pictures}, {path: /data/x}]}")
    paths = [source.path for source in load_config(tmp_path / "a.yaml").dataset.sources]
    assert paths == [str(tmp_path.resolve() / "pictures"), "/data/x"]


def test_overrides_win_and_are_read_as_yaml(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("train: {max_steps: 5}")
    settings = ["train.max_steps=7", "train.learning_rate=1e-3", "samples.prompts=[a fox]", "output.trigger=null"]
    config = load_config(tmp_path / "a.yaml", settings)
    assert (config.train.max_steps, config.train.learning_rate) == (7, 1e-3)
    assert config.samples.prompts[0].prompt == "a fox"
    assert config.output.trigger is None


@pytest.mark.parametrize("override", ["train.max_steps", "=5", "a..b=1", "train.x=[", ".=1"])
def test_malformed_overrides_are_told(override: str) -> None:
    with pytest.raises(UserError, match="--set"):
        apply_override({}, override)


def test_an_override_below_a_value_is_told() -> None:
    with pytest.raises(UserError, match="is a value, not a section"):
        apply_override({"train": 5}, "train.max_steps=1")


def _unusual() -> Config:
    values: dict[str, Any] = {
        "name": "Übung 1",
        "dataset": {"sources": [{"path": "/a b/ü", "repeats": 3}], "resolution": [[512, 768]]},
        "lora": {"alpha": 0.1, "block_ranks": {"mid.*": 0}},
        "train": {"learning_rate": 1e-7, "optimizer_args": {"weight_decay": 0, "betas": [0.9, 0.99]}, "seed": 2**62},
        "samples": {"prompts": ["a: b # c", "yes", "1e5"]},
    }
    return Config.model_validate(values)


def test_what_is_dumped_loads_the_same(tmp_path: Path) -> None:
    config = _unusual()
    save_config(config, tmp_path / "a.yaml")
    assert load_config(tmp_path / "a.yaml") == config
    assert "Übung" in (tmp_path / "a.yaml").read_text(encoding="utf-8")
    assert list(yaml.safe_load(dump_config(config))) == list(Config.model_fields)


def test_changes_are_only_what_differs() -> None:
    config = _unusual()
    changes = yaml.safe_load(dump_changes(config))
    assert changes["lora"] == {"alpha": 0.1, "block_ranks": {"mid.*": 0}}
    assert "loss" not in changes
    assert parse_config(changes) == config
    assert yaml.safe_load(dump_changes(Config())) == {"version": 1}


def test_the_validation_folder_is_taken_from_the_config_files_own_folder(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("validation:\n  path: held\n")
    assert load_config(tmp_path / "a.yaml").validation.path == str(tmp_path / "held")

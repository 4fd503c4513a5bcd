"""Whose a file is, and what cannot be read: told in words, never a traceback."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from trainer.__main__ import main
from trainer.config import Config
from trainer.config_io import dump_changes
from trainer.errors import UserError
from trainer.imports import CONFIG_KINDS
from trainer.imports.reading import LARGEST_BYTES, companions_in, import_path, import_text, is_own_text
from trainer.imports.values import arguments, flag, run_name, shown, whole

OURS = "name: mine\nlora: {rank: 24}\n"


def test_our_own_settings_stay_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(OURS)
    for place in (tmp_path, tmp_path / "config.yaml"):  # a run's folder, a file
        found = import_path(place)
        assert found.config == Config.model_validate({"name": "mine", "lora": {"rank": 24}})
        assert [line.setting for line in found.report.mapped] == ["name", "lora.rank"]
    assert import_text(dump_changes(found.config), "again").config == found.config


def test_whose_a_text_is() -> None:
    assert is_own_text(OURS)
    assert is_own_text("")
    assert is_own_text("train: {learning_rat: 1}")  # wrong, and to be told as such
    assert is_own_text("just words")
    assert not is_own_text("network_dim = 4")
    assert not is_own_text('{"LoRA_type": "Standard", "max_resolution": "512,512", "network_dim": 8}')
    assert not is_own_text("accelerate launch train_network.py --network_dim 4")
    assert not is_own_text("job: train\nconfig: {process: []}")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{broken", "not valid JSON"),
        ("a: b: c", "not valid YAML in line 1"),
        ("just words", "holds no settings"),
        ('{"a": 1, "config": 3}', "not a setting"),
        ("[" * 5000, "nested too deeply"),
        ("when: 2020-13-45", "not valid YAML"),
    ],
)
def test_what_cannot_be_read_is_told(text: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        import_text(text, "settings")


def test_files_that_are_no_settings_are_told(tmp_path: Path) -> None:
    (tmp_path / "picture.json").write_bytes(b"\xff\xd8\xff\xe0 not text")
    (tmp_path / "large.json").write_bytes(b" " * (LARGEST_BYTES + 1))
    (tmp_path / "lora.safetensors").write_bytes(b"short")
    for name in ("picture.json", "large.json", "lora.safetensors", "missing.json"):
        with pytest.raises(UserError, match=name):
            import_path(tmp_path / name)


def test_utf_16_and_old_line_ends_are_read(tmp_path: Path) -> None:
    (tmp_path / "windows.toml").write_bytes("network_module = 'x'\r\nnetwork_dim = 7\r\n".encode("utf-16"))
    assert import_path(tmp_path / "windows.toml").config.lora.rank == 7


def test_too_many_values_are_refused() -> None:
    bomb = "a: &a [1,2]\n" + "".join(
        f"{name}: &{name} {{x: *{before}, y: *{before}}}\n"
        for before, name in zip("bcdefghijklmnopqr", "cdefghijklmnopqrs", strict=True)
    )
    text = f"job: train\nb: &b {{x: 1}}\n{bomb.partition(chr(10))[2]}config: {{process: [{{network: *s}}]}}\n"
    with pytest.raises(UserError, match="more than"):
        import_text(text, "bomb")


@pytest.mark.parametrize(
    ("lines", "lost"),
    [
        ('optimizer_type = "AdamWScheduleFree"\nscale_weight_norms = 1.0', "scale_weight_norms"),  # one of two settings
        ('optimizer_type = "Prodigy"\nfull_bf16 = true', "full_bf16"),  # a setting of the section
        ("caption_dropout_rate = 3", "caption_dropout_rate"),
        ("min_timestep = 900\nmax_timestep = 100", "min_timestep"),
    ],
)
def test_what_a_config_refuses_is_left_out_and_told(lines: str, lost: str) -> None:
    report = import_text(f"network_dim = 4\n{lines}\n", "settings.toml").report
    assert [line.source for line in report.no_equivalent] == [lost]


def test_only_settings_and_texts_beside_a_file_are_read(tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("a cat")
    (tmp_path / "key.pem").write_text("secret")
    companion = companions_in(tmp_path)
    assert companion("prompts.txt") == "a cat"
    assert companion("key.pem") is None
    assert companion("missing.txt") is None


def test_values_as_other_programs_write_them() -> None:
    assert [whole(value) for value in ("8", 8.0, "8.5", True, None)] == [8, 8, None, None, None]
    assert [flag(value) for value in ("True", "false", 1, "maybe")] == [True, False, True, None]
    assert arguments('"betas=(0.9, 0.99)" weight_decay=0.1') == {"betas": "(0.9, 0.99)", "weight_decay": "0.1"}
    assert arguments("no arguments") == {}
    assert [run_name(name) for name in ("a/b:c", "..x", "  ")] == ["a-b-c", "x", "imported"]
    assert shown("huggingface_token", "hf_x") == "(not shown)"
    assert shown("keep_tokens", 3) == "3"


def test_the_command_writes_a_config_and_tells_of_each_key(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source, out = tmp_path / "flat.toml", tmp_path / "mine.yaml"
    source.write_text('network_dim = 12\ntrain_data_dir = "pics"\nxformers = true\nnetwork_module = "networks.lora"\n')
    assert main(["read-config", str(source), "--out", str(out), "--json"]) == 0
    answer = json.loads(capfd.readouterr().out)
    assert answer["kind"] == "sd-scripts TOML"
    assert [line["source"] for line in answer["no_effect"]] == ["xformers"]
    written = yaml.safe_load(out.read_text())
    assert written["lora"]["rank"] == 12
    assert written["dataset"]["sources"][0]["path"] == str(tmp_path / "pics")  # from where the file lies
    assert main(["read-config", str(source), "--out", str(out)]) == 2
    assert "exists already" in capfd.readouterr().err
    assert main(["read-config", str(source)]) == 0
    assert "network_dim: 12 -> lora.rank: 12" in capfd.readouterr().out


def test_every_kind_has_a_label() -> None:
    assert all(kind.label for kind in CONFIG_KINDS.values())
    assert {"kohya_gui", "sd_scripts", "command_line", "onetrainer", "ai_toolkit", "own"} <= set(CONFIG_KINDS)


@pytest.mark.parametrize("name", ["untouched_defaults", "kohya_locon_blocks"])
def test_keys_that_are_no_text_are_told_like_any_other(name: str) -> None:
    """YAML's braces allow numbers and dates as keys; JSON does not."""
    path = Path(__file__).parents[1] / "data" / "imports" / "kohya_gui" / f"{name}.json"
    text = path.read_text(encoding="utf-8").replace("{", "{1: 2, null: 3, 2026-01-01: {true: 4}, ", 1)
    report = import_text(text, path.name).report
    told = {line.source for line in [*report.mapped, *report.guessed, *report.no_equivalent, *report.no_effect]}
    assert {"1", "None", "2026-01-01"} <= {source.partition(".")[0] for source in told}


@pytest.mark.parametrize("text", ["a = " + "[" * 5000, "a = " + "{b = " * 3000, "[a.b" + ".c" * 20_000 + "]"])
def test_toml_without_end_is_told(text: str, tmp_path: Path) -> None:
    path = tmp_path / "deep.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError):
        import_path(path)

"""`trainer settings` and the page made of the same facts; the README's example of a config."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.recipe.tiny_runs import make_pictures
from trainer.__main__ import main
from trainer.config import Config
from trainer.config_facts import every_setting
from trainer.config_io import load_config
from trainer.config_reference import matching, page, reference
from ui.fields import CONFIG_FIELDS

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "settings.md"
REFERENCE = reference()
SETTINGS = list(every_setting(Config))


def asked(capfd: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert main(["settings", *arguments, "--json"]) == 0
    return json.loads(capfd.readouterr().out)


def names_found(*words: str) -> list[str]:
    return [facts["name"] for facts in matching(REFERENCE, words)]


def test_the_page_is_of_this_config(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["settings", "--markdown"]) == 0
    written = capfd.readouterr().out
    renew = "./launch.sh trainer settings --markdown > docs/settings.md"
    assert PAGE.read_text(encoding="utf-8") == written, f"out of date: {renew}"


def test_the_page_has_a_chapter_for_each_section_and_every_setting_once() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert sorted(re.findall(r"^### `(.+)`$", text, re.M)) == sorted(setting.name for setting in SETTINGS)
    chapters = [line.partition("`")[2].rstrip("`") for line in text.splitlines() if line.startswith("## ")]
    assert set(chapters) == {setting.name.rpartition(".")[0] for setting in SETTINGS}
    assert len(chapters) == len(set(chapters))


def test_links_inside_the_page_lead_somewhere() -> None:
    """An anchor is a heading in small letters, without marks, with hyphens for spaces; GitHub numbers the second."""
    text = PAGE.read_text(encoding="utf-8")
    headings = re.findall(r"^#+ (.+)$", text, re.M)
    anchors = ["".join(c for c in head.lower().replace(" ", "-") if c.isalnum() or c in "-_") for head in headings]
    assert len(anchors) == len(set(anchors))
    links = re.findall(r"\]\(#([^)]*)\)", text)
    assert set(links) <= set(anchors)
    assert len(links) > 60


def test_json_tells_everything_of_each_setting(capfd: pytest.CaptureFixture[str]) -> None:
    told = {facts["name"]: facts for facts in asked(capfd)["settings"]}
    assert list(told) == [setting.name for setting in SETTINGS]
    assert told["lora.lokr_factor"] == {
        "name": "lora.lokr_factor",
        "label": "LoKr factor",
        "help": "For `lokr`: the size of its first matrix, such as 8; smaller makes a larger file. "
        "-1 for the smallest file.",
        "default": -1,
        "required": False,
        "allowed": "whole number (from -1 to 1024)",
        "schema": {"type": "integer", "minimum": -1, "maximum": 1024},
        "inner": None,
        "effect": "`lora.type` is `lokr`",
        "depends_on": ["lora.type"],
        "also": ["factor", "decompose_factor", "lokr_decompose_factor"],
    }
    assert told["dataset.sources.*.path"]["required"]
    assert told["dataset.sources"]["inner"] == "dataset.sources.*"
    assert told["validation.every_steps"]["depends_on"] == [
        "validation.split",
        "validation.path",
        "validation.every_epochs",
    ]
    plain = Config().model_dump(mode="json")
    for field in CONFIG_FIELDS:
        value: Any = plain
        for part in field.name.split("."):
            value = value[part]
        assert told[field.name]["default"] == value, field.name


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["network_dim"], ["lora.rank"]),
        (["NETWORK_DIM"], ["lora.rank"]),
        (["lora.conv_"], ["lora.conv_rank", "lora.conv_alpha"]),
        (["Where huber and smooth_l1 turn"], ["loss.huber_c"]),
        (["noise", "offset", "random"], ["loss.noise_offset_random_strength"]),
        (["in_json"], ["dataset.sources.*.metadata_file"]),
        (["Caption table"], ["dataset.sources.*.metadata_file"]),
    ],
)
def test_settings_are_found_by_every_name_and_by_their_explanation(words: list[str], found: list[str]) -> None:
    assert names_found(*words) == found


def test_every_setting_is_found_by_each_of_its_names() -> None:
    for setting in SETTINGS:
        for word in (setting.name, setting.label, setting.help, *setting.also):
            assert setting.name in names_found(word), word


def test_what_is_found_is_told_in_text_and_as_a_page(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["settings", "network_alpha"]) == 0
    assert capfd.readouterr().out == (
        "lora.alpha  (Alpha)\n"
        "  The LoRA's strength is alpha / rank. Equal to rank: full strength.\n"
        "  number (above 0, up to 1024); default: `16.0`\n"
        "  elsewhere: `network_alpha`, `linear_alpha`, `lora_alpha`\n"
    )
    markdown = asked(capfd, "network_alpha", "--markdown")["markdown"]
    assert markdown == page(matching(REFERENCE, ["network_alpha"]))
    assert re.findall("^##.*", markdown, re.M) == ["## LoRA: `lora`", "### `lora.alpha`"]


def test_a_word_that_is_nowhere_is_wrong_input(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["settings", "rank", "qqq", "--json"]) == 2
    problem = json.loads(capfd.readouterr().out)["error"][0]
    assert (problem["code"], problem["field"]) == ("settings.none", "words")
    assert "'rank' and 'qqq'" in problem["message"]


def test_it_needs_no_library_of_models_and_no_workspace() -> None:
    code = (
        "import sys\nfrom trainer.__main__ import main\nassert main(['settings']) == 0\n"
        "unwanted = {'torch', 'numpy', 'PIL', 'huggingface_hub', 'gradio', 'trainer.runs.store'}\n"
        "sys.exit(' '.join(unwanted & set(sys.modules)) or 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")


def test_the_readmes_config_is_one(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Its folder of pictures is the one beside it, wherever the command runs."""
    example = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)
    assert len(example) == 1
    (tmp_path / "my.yaml").write_text(example[0], encoding="utf-8")
    pictures = make_pictures(tmp_path / "pictures")
    config = load_config(tmp_path / "my.yaml")
    assert [source.path for source in config.dataset.sources] == [str(pictures)]
    assert config.output.trigger
    place = ["--workspace", str(tmp_path / "workspace"), "--set", "model.base=demo", "--set", "dataset.resolution=64"]
    assert main(["plan", str(tmp_path / "my.yaml"), *place, "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["max_steps"] == config.train.max_steps

"""Where a captioner's weights come from: the files of the hub that are needed, and what is told when that fails."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests import tiny_taggers
from tests.hub_server import Hub
from trainer.captioners.options import ModelOptions
from trainer.captioners.weights import tagger_file, weights_folder
from trainer.errors import Problem, UserError

NEEDED = [
    "chat_template.jinja",
    "merges.txt",
    "tokenizer.model",
    "model-1-of-2.safetensors",
    "model-2-of-2.safetensors",
]
SPARE = ["consolidated.safetensors", "pytorch_model.bin", "code.py", "README.md", "onnx/model.onnx", "onnx/config.json"]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A model's repository with what models have beside what is needed."""
    folder = tmp_path / "repository"
    (folder / "onnx").mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "llava"}), encoding="utf-8")
    for name in [*NEEDED, *SPARE]:
        (folder / name).write_text(name, encoding="utf-8")
    return folder


def told(model: str, model_type: str = "llava", revision: str | None = None) -> Problem:
    with pytest.raises(UserError) as caught:
        weights_folder(ModelOptions(model=model, revision=revision), (model_type,))
    (problem,) = caught.value.problems
    return problem


def test_only_what_is_needed_is_downloaded(hub: Hub, repository: Path) -> None:
    hub.add("owner/llava", repository)
    folder = weights_folder(ModelOptions(model="owner/llava"), ("llava",))
    there = {path.name for path in folder.iterdir()}
    assert hub.downloaded() == there == {"config.json", *NEEDED}


def test_what_is_here_works_without_a_network(hub: Hub, repository: Path) -> None:
    hub.add("owner/llava", repository)
    folder = weights_folder(ModelOptions(model="owner/llava"), ("llava",))
    hub.repositories.clear()
    hub.add("owner/llava", repository, refuses_all=(503, ""))
    assert weights_folder(ModelOptions(model="owner/llava"), ("llava",)) == folder


def test_a_wrong_model_is_told_before_its_weights_come(hub: Hub, repository: Path) -> None:
    hub.add("owner/llava", repository)
    assert told("owner/llava", "florence2").code == "caption.wrong_type"
    assert not any(name.endswith(".safetensors") for name in hub.downloaded())


def test_models_with_code_of_their_own_are_told_before_their_weights_come(hub: Hub, repository: Path) -> None:
    (repository / "processor_config.json").write_text('{"auto_map": {"AutoProcessor": "code.Evil"}}', encoding="utf-8")
    hub.add("owner/llava", repository)
    problem = told("owner/llava")
    assert problem.code == "caption.own_code"
    assert "processor_config.json" in problem.message
    assert not any(name.endswith((".safetensors", ".py")) for name in hub.downloaded())


def test_what_fails_is_told_with_the_way_to_get_it(hub: Hub, repository: Path) -> None:
    hub.add("owner/gated", repository, refuses_all=(403, "GatedRepo"))
    hub.add("owner/llava", repository)
    for model, words in {
        "owner/none": "not a model on the hub",
        "owner/gated": "those who accepted its terms",
        "owner": "neither a folder on this machine nor a Hugging Face id",
    }.items():
        problem = told(model)
        assert (problem.code, problem.field) == ("caption.model_not_found", "model")
        assert words in problem.message
        if "/" in model:
            assert f"hf download {model}" in problem.hint
    assert "no revision 'v9'" in told("owner/llava", revision="v9").message


def test_a_revision_is_asked_for(hub: Hub, repository: Path) -> None:
    hub.add("owner/llava", repository, revisions=("main", "v2"))
    weights_folder(ModelOptions(model="owner/llava", revision="v2"), ("llava",))
    assert all("/v2" in path for _, path in hub.asked if "/revision/" in path)


def test_a_taggers_files(hub: Hub, tmp_path: Path) -> None:
    folder = tiny_taggers.wd_tagger(tmp_path / "wd")
    (folder / "model.safetensors").write_bytes(b"x")
    (folder / "sample.webp").write_bytes(b"x")
    hub.add("owner/wd", folder)
    file = tagger_file(ModelOptions(model="owner/wd"))
    assert file.name == "model.onnx"
    assert hub.downloaded() == {"model.onnx", "selected_tags.csv"}


def test_a_file_that_is_no_tagger_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"x")
    with pytest.raises(UserError, match=r"model\.bin is no \.onnx file"):
        tagger_file(ModelOptions(model=str(tmp_path / "model.bin")))

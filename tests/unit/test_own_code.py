"""Settings of models that name code to be run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from trainer.demo import MODEL_DIR
from trainer.own_code import file_with_own_code


def write(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "unet/config.json", "model_index.json"])
@pytest.mark.parametrize(
    "values",
    [
        {"auto_map": {"AutoModel": "evil.Model"}},
        {"text_config": {"auto_map": {"AutoConfig": "evil.Config"}}},
        {"parts": [[{"auto_map": "x"}]]},
        {"_attn_implementation": "evil/kernels"},
        {"_attn_implementation_internal": "evil/kernels:forward"},
        {"vision_config": {"attn_implementation": "evil/kernels"}},
        {"_class_name": ["pipeline", "EvilPipeline"]},
        {"custom_pipeline": "evil/pipeline"},
    ],
)
def test_code_is_found(name: str, values: dict[str, Any], tmp_path: Path) -> None:
    path = write(tmp_path / name, {"model_type": "blip", **values})
    assert file_with_own_code(tmp_path) == path


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("config.json", {"_attn_implementation_autoset": True, "_attn_implementation": "sdpa"}),
        ("config.json", {"auto_map": None, "text_config": {"attn_implementation": None}}),
        ("tokenizer.json", {"model": {"vocab": {"auto_map": 7}}}),
        ("config.json", "{"),
        ("config.json", "[" * 100_000),
        ("config.json", '{"a":' * 900 + "1" + "}" * 900),
        ("config.json", [1]),
    ],
)
def test_what_names_none_is_left_alone(name: str, values: Any, tmp_path: Path) -> None:
    write(tmp_path / name, values)
    assert file_with_own_code(tmp_path) is None


def test_the_demo_model_names_none() -> None:
    assert file_with_own_code(MODEL_DIR) is None

"""Loading a captioner's network: weights in fewer bits, and packages that are missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import tiny_captioners
from trainer.captioners import CAPTIONERS, networks
from trainer.captioners.base import Captioner
from trainer.errors import UserError


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llava")
    tiny_captioners.llava(folder)
    return folder


def loaded(folder: Path, kind: str = "joycaption", **options: Any) -> Captioner:
    return CAPTIONERS[kind].load(CAPTIONERS[kind].parse({"model": str(folder), **options}))


@pytest.mark.parametrize("bits", ["int8", "nf4"])
def test_a_missing_package_for_fewer_bits_is_told(bits: str, llava: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=f"quantize: {bits} needs the package bitsandbytes") as caught:
        loaded(llava / "not looked at yet", quantize=bits)
    (problem,) = caught.value.problems
    assert (problem.code, problem.field) == ("caption.package_missing", "quantize")
    assert "pip install bitsandbytes" in problem.hint


@pytest.mark.parametrize(("bits", "layer"), [("int8", "Linear8bitLt"), ("nf4", "Linear4bit")])
def test_only_what_writes_gets_fewer_bits(bits: str, layer: str, llava: Path) -> None:
    pytest.importorskip("bitsandbytes")
    network = loaded(llava, quantize=bits)._network  # type: ignore[attr-defined]
    packed = [name for name, module in network.named_modules() if type(module).__name__ == layer]
    assert packed
    assert all("language_model" in name for name in packed)


def test_a_package_that_a_model_asks_for_is_told(tmp_path: Path) -> None:
    """The second SmolVLM wants num2words, for the lengths of videos."""
    tiny_captioners.idefics3(tmp_path)
    config = tmp_path / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text("utf-8")), "model_type": "smolvlm"}), encoding="utf-8")
    with pytest.raises(UserError, match=r"needs another package. Package `num2words` is required"):
        loaded(tmp_path, "smolvlm")


def test_memory_that_runs_out_while_loading_is_told() -> None:
    def full() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(UserError, match=r"does not fit the memory\. Set quantize"):
        networks.load_part("owner/model", full)

"""What a device lacks is told by field, given and allowed, or done another way with one warning."""

from __future__ import annotations

import importlib.metadata
import re
from typing import Any, get_args

import pytest

from trainer.accelerators import FEATURES, Kind
from trainer.config import Config
from trainer.config_io import parse_config
from trainer.config_training import PAGED
from trainer.device_needs import other_ways, refusals, suited
from trainer.errors import UserError

KINDS: tuple[Kind, ...] = get_args(Kind)


def config_of(**sections: dict[str, Any]) -> Config:
    return parse_config(sections)


def suited_and_told(config: Config, kind: Kind) -> tuple[Config, list[tuple[str, str, str]]]:
    told: list[tuple[str, str, str]] = []
    return suited(config, kind, (), lambda *each: told.append(each)), told


def refused(config: Config, kind: Kind) -> list[str | None]:
    return [problem.field for problem in refusals(config, kind)]


@pytest.mark.parametrize("kind", KINDS)
def test_usual_settings_suit_every_device(kind: Kind) -> None:
    config = Config()
    assert suited(config, kind, (), lambda *told: pytest.fail(str(told))) is config


@pytest.mark.parametrize(
    ("section", "values", "kinds", "words"),
    [
        ("train", {"mixed_precision": "fp16"}, {"xpu", "npu"}, "fp16 is given.*allowed are auto, bf16 and no"),
        ("train", {"lora_precision": "fp16"}, {"xpu", "npu"}, "fp16 is given.*allowed are float32 and bf16"),
        ("model", {"quantize": "fp8"}, {"mps", "npu"}, "fp8 is given.*allowed are none, int8 and nf4"),
        ("train", {"deterministic": True}, {"mps", "xpu", "npu"}, "true is given.*allowed is false"),
        ("train", {"optimizer": "adamw8bit"}, {"mps", "npu"}, "adamw8bit has no kernels for an? .*a processor and an"),
        ("train", {"optimizer": "paged_adamw"}, {"cpu", "mps", "npu"}, "only an NVIDIA GPU and an AMD GPU and an Int"),
    ],
)
def test_what_would_learn_otherwise_is_refused(
    section: str, values: dict[str, Any], kinds: set[str], words: str
) -> None:
    config, (name,) = config_of(**{section: values}), values
    assert {kind for kind in KINDS if refused(config, kind)} == kinds
    for kind in kinds:
        (problem,) = refusals(config, kind)  # type: ignore[arg-type]
        assert problem.field == f"{section}.{name}" and problem.message.startswith(f"{section}.{name}: ")
        assert FEATURES[kind].name in problem.message and problem.hint  # type: ignore[index]
        assert re.search(words, problem.message)


def test_all_is_told_at_once_with_what_is_missing() -> None:
    config = config_of(
        train={"mixed_precision": "fp16", "deterministic": True, "optimizer": "custom", "optimizer_class": "a.B"},
        model={"quantize": "fp8", "offload": 0.5},
    )
    told: list[str] = []
    with pytest.raises(UserError) as caught:
        suited(config, "npu", (), lambda code, *_: told.append(code))
    fields = [problem.field for problem in caught.value.problems]
    assert fields == ["train.mixed_precision", "model.quantize", "train.deterministic", "train.optimizer_class"]
    assert told == [], "nothing is warned of what does not begin"


@pytest.mark.parametrize(
    ("sections", "kinds", "left"),
    [
        ({"model": {"offload": 0.5}}, {"cpu", "mps"}, {"model": {"offload": 0.0}}),
        (
            {"train": {"optimizer_args": {"fused": True, "weight_decay": 0.1}}},
            {"mps", "npu"},
            {"train": {"optimizer_args": {"weight_decay": 0.1}}},
        ),
        ({"train": {"optimizer_args": {"fused": False}}}, set(), {}),
        ({"train": {"optimizer": "sgd", "optimizer_args": {"fused": True}}}, set(), {}),
    ],
)
def test_what_changes_nothing_is_done_another_way_and_told_once(
    sections: dict[str, Any], kinds: set[str], left: dict[str, Any]
) -> None:
    config = config_of(**sections)
    for kind in KINDS:
        found, told = suited_and_told(config, kind)
        assert len(told) == (1 if kind in kinds else 0), kind
        assert found == (config_of(**left) if kind in kinds else config)
        for _, message, hint in told:
            assert "is given" in message and FEATURES[kind].name in message and hint


def test_each_other_way_ends_the_need_for_it() -> None:
    config = config_of(model={"offload": 1.0}, train={"optimizer_args": {"fused": True}})
    assert len(list(other_ways(config, "mps"))) == 2
    assert not list(other_ways(suited(config, "mps", (), lambda *_: None), "mps"))


@pytest.mark.parametrize(("installed", "refusal"), [("0.49.2", True), ("0.50.0", False), ("1.0.0", False)])
def test_adamw8bit_on_a_processor_needs_kernels_for_it(
    monkeypatch: pytest.MonkeyPatch, installed: str, refusal: bool
) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda name: installed)
    problems = list(refusals(config_of(train={"optimizer": "adamw8bit"}), "cpu"))
    assert [problem.code for problem in problems] == ["optimizer.needs_gpu"] * refusal
    assert all("bitsandbytes 0.50" in problem.message for problem in problems)


def test_a_missing_package_is_told_by_what_knows_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert not list(refusals(config_of(train={"optimizer": "adamw8bit"}), "cpu"))


@pytest.mark.parametrize("name", PAGED)
def test_paged_optimizers_need_memory_of_their_own(name: str) -> None:
    assert refused(config_of(train={"optimizer": name}), "cpu") == ["train.optimizer"]
    assert not refused(config_of(train={"optimizer": name}), "cuda")

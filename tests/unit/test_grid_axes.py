"""What each kind of axis reads, refuses and changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest

from trainer.errors import UserError
from trainer.grids.axes import KINDS, NO_LORA, Axis, AxisName, put_value, read_axis
from trainer.grids.spec import as_given
from trainer.pictures import LoraUse, PictureSettings


def axis(kind: str, values: Any, row: int = 1) -> Axis:
    return read_axis("y", {"kind": kind, "values": values, "row": row}, as_given)


def changed(with_axis: Axis, number: int, **base: Any) -> dict[str, Any]:
    settings = PictureSettings(**base).model_dump()
    put_value(settings, with_axis, with_axis.values[number])
    return settings


def test_every_kind_is_described() -> None:
    assert set(KINDS) == set(get_args(AxisName))
    guide = (Path(__file__).parents[2] / "docs" / "grids.md").read_text(encoding="utf-8")
    assert [kind for kind in KINDS if f"`{kind}`" not in guide] == []


@pytest.mark.parametrize(
    ("kind", "given", "values", "labels"),
    [
        ("steps", "10-30 (+10), 20", [10, 20, 30], ["10", "20", "30"]),
        ("seed", [3, "5-6"], [3, 5, 6], ["3", "5", "6"]),
        ("guidance", "1, 2.5", [1.0, 2.5], ["1", "2.5"]),
        ("weight", "-1-1 [3]", [-1.0, 0.0, 1.0], ["-1", "0", "1"]),
        ("sampler", "euler_a, DPM++ 2M Karras", ["Euler a", "DPM++ 2M Karras"], None),
        ("schedule", "Karras, sgm", ["karras", "sgm_uniform"], ["Karras", "SGM Uniform"]),
        ("size", "128, 64 x 72", ["128x128", "64x72"], None),
        ("prompt", "a cat, red\na dog", ["a cat, red", "a dog"], None),
        ("prompt_sr", 'cat, dog, "cat, dog"', ["cat", "dog", "cat, dog"], None),
        ("lora", f"/x/a.safetensors, {NO_LORA}", ["/x/a.safetensors", NO_LORA], ["a", NO_LORA]),
        ("model", "demo, /m/base.safetensors", ["demo", "/m/base.safetensors"], ["demo", "base.safetensors"]),
    ],
)
def test_values_and_labels(kind: str, given: Any, values: list[Any], labels: list[str] | None) -> None:
    read = axis(kind, given)
    assert read.values == values
    assert read.labels == (labels or values)


def test_checkpoints_are_told_by_their_steps() -> None:
    paths = [f"/w/runs/{run}/checkpoints/step-{step:06d}/lora.safetensors" for run, step in (("a", 5), ("a", 120))]
    assert axis("lora", paths).labels == ["step 5", "step 120"]
    other = paths[0].replace("/a/", "/b/")
    assert axis("lora", [*paths, other]).labels == ["a, step 5", "a, step 120", "b, step 5"]
    assert axis("weight", "1", row=2).title == "LoRA weight 2"


@pytest.mark.parametrize(
    ("kind", "given", "words"),
    [
        ("steps", "0", "Y, Steps: 0 is not allowed; allowed is 1 or more"),
        ("steps", "1.5", "whole numbers"),
        ("steps", "", "no values"),
        ("clip_skip", "13", "12 or less"),
        ("weight", "101", "Y, LoRA weight: 101.0 is not allowed"),
        ("sampler", "Eulr", "no sampler; these are: DDIM"),
        ("sampler", "LCM Karras", "'LCM Karras': LCM follows The model's own only"),
        ("schedule", "fast", "no schedule; these are"),
        ("size", "50", "not a multiple of 8"),
        ("size", "64x", "'64x' is no size"),
        ("nonsense", "1", "'nonsense' is nothing that an axis can change"),
    ],
)
def test_wrong_values_are_told_at_their_axis(kind: str, given: str, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        axis(kind, given)
    assert {problem.field.partition(".")[0] for problem in caught.value.problems} == {"y"}


def test_one_message_a_value_all_at_once() -> None:
    with pytest.raises(UserError) as caught:
        axis("steps", "0, 5, abc, 2000, 0")
    assert len(caught.value.problems) == 3


def test_what_values_change() -> None:
    assert changed(axis("steps", "7"), 0)["steps"] == 7
    assert changed(axis("size", "64x72"), 0)["height"] == 72
    searched = axis("prompt_sr", "star, ring")
    assert changed(searched, 1, prompt="a star", negative="no star")["prompt"] == "a ring"
    assert changed(searched, 1, prompt="a star", negative="no star")["negative"] == "no ring"
    sampled = changed(axis("sampler", "DPM++ 2M Karras, LCM"), 0)
    assert (sampled["sampler"], sampled["schedule"]) == ("dpmpp_2m", "karras")
    other = changed(axis("sampler", "LCM"), 0, sampler="dpmpp_2m", schedule="karras")
    assert (other["sampler"], other["schedule"]) == ("lcm", "model")


def test_loras_and_their_weights(tmp_path: Path) -> None:
    base = {"loras": [LoraUse(path="a", weight=0.5, parts="unet:1")]}
    file = axis("lora", f"b, {NO_LORA}")
    assert changed(file, 0, **base)["loras"] == [{"path": "b", "weight": 0.5, "parts": "unet:1"}]
    assert changed(file, 1, **base)["loras"] == [None]
    second = changed(axis("lora", "c", row=2), 0, **base)["loras"]
    assert second == [base["loras"][0].model_dump(), {"path": "c", "weight": 1.0, "parts": ""}]
    assert changed(axis("weight", "0.8"), 0, **base)["loras"][0]["weight"] == 0.8

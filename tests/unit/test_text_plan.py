"""How captions are encoded is decided by what they can become and what that takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.recipe.tiny_runs import make_pictures
from trainer.config import Config
from trainer.config_io import parse_config
from trainer.data.epoch import lay_out
from trainer.data.text_plan import TextPlan, embedding_bytes, text_plan

MIB = 2**20


def planned(folder: Path, captions: dict[str, Any] | None = None, **changes: Any) -> TextPlan:
    config = config_of(folder, captions, **changes)
    layout = lay_out(config)
    return text_plan(config, layout.training, layout.validation, row_bytes=MIB)


def config_of(folder: Path, captions: dict[str, Any] | None = None, **changes: Any) -> Config:
    dataset = {"sources": [{"path": str(folder)}], "captions": {"wildcards": True, **(captions or {})}}
    dataset["cache"] = changes.pop("cache", {})
    return parse_config({"dataset": dataset, **changes})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three pictures, two texts each."""
    folder = make_pictures(tmp_path_factory.mktemp("pictures"), 3)
    for number in range(3):
        (folder / f"{number}.txt").write_text(f"a {{red|blue}} sks, number {number}")
    return folder


def test_what_fits_is_encoded_beforehand(folder: Path) -> None:
    plan = planned(folder)
    assert plan.how == "beforehand" and plan.complete and plan.texts_rest
    assert plan.known == {f"a {colour} sks, number {n}" for colour in ("red", "blue") for n in range(3)}
    assert plan.bytes == 6 * MIB and plan.in_words() == "6 texts (6.0 MiB) are encoded before training"


@pytest.mark.parametrize(("gb", "how"), [(6 / 1024, "beforehand"), (5.9 / 1024, "shelf"), (0, "shelf")])
def test_the_budget_decides(folder: Path, gb: float, how: str) -> None:
    plan = planned(folder, cache={"text_gb": gb})
    assert plan.how == how and plan.texts_rest == (how == "beforehand")
    if how == "shelf":
        told = f"6 texts would take 6.0 MiB, more than dataset.cache.text_gb ({gb:g}): each is encoded when it comes, "
        assert plan.in_words() == told + ("and those used last are kept" if gb else "and none is kept")


def test_preserved_captions_count(folder: Path) -> None:
    changes = {"loss": {"preserve": {"class_word": "dog"}}, "output": {"trigger": "sks"}}
    plan = planned(folder, **changes)
    assert len(plan.known) == 12 and "a blue dog, number 2" in plan.known
    assert planned(folder, cache={"text_gb": 7 / 1024}, **changes).how == "shelf"


def test_what_varies_too_much_is_not_listed(folder: Path) -> None:
    plan = planned(folder, {"shuffle": True})
    assert (plan.known, plan.complete, plan.texts_rest) == (frozenset(), False, False)
    assert plan.in_words() == "captions that vary too much to be listed are encoded when they come"
    (folder / "0.txt").write_text("{a|b}" * 10)
    try:
        some = planned(folder)
    finally:
        (folder / "0.txt").write_text("a {red|blue} sks, number 0")
    assert len(some.known) == 4 and not some.complete and some.how == "beforehand" and not some.texts_rest
    assert some.in_words().startswith("4 texts (4.0 MiB) are encoded before training; captions that vary")


@pytest.mark.parametrize(
    ("changes", "how", "why"),
    [
        ({"lora": {"train": "both"}}, "learned", "the text encoder learns"),
        ({"cache": {"text": False}}, "each_time", "dataset.cache.text is off"),
    ],
)
def test_what_is_not_kept_at_all(folder: Path, changes: dict[str, Any], how: str, why: str) -> None:
    plan = planned(folder, **changes)
    assert plan.how == how and not plan.texts_rest and why in plan.in_words()


@pytest.mark.parametrize(
    ("length", "width", "number", "expected"),
    [(75, 768, 2, 118_272), (75, 2048, 2, 315_392), (225, 2048, 4, 1_892_352)],
)
def test_what_an_embedding_takes(length: int, width: int, number: int, expected: int) -> None:
    """SD 1.5 and SDXL in 16 bits, and SDXL in three chunks and 32 bits: 77 x width x bytes, worked out by hand."""
    captions = parse_config({"dataset": {"captions": {"max_token_length": length}}}).dataset.captions
    assert embedding_bytes(captions, width, number) == expected

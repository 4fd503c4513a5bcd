"""Fitting a run into memory: a table over GPUs and models, and what is never changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.unit.dataset_samples import config_for, write_pictures
from trainer.auto_fit import Fitted, fit, memory_advice, what_if
from trainer.config import Config
from trainer.data.epoch import Layout, lay_out
from trainer.estimates import MemoryModel
from trainer.model_sizes import ModelSizes, model_sizes
from trainer.plan_fixes import changed
from trainer.plan_room import Room, given_room

GIB = 2**30
SD1, SDXL = "runwayml/stable-diffusion-v1-5", "stabilityai/stable-diffusion-xl-base-1.0"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight squares, so that batches of 1, 2, 4 and 8 come out even."""
    folder = tmp_path_factory.mktemp("pictures")
    write_pictures(folder, [(1024, 1024)] + [(64, 64)] * 7)
    return folder


class Case:
    """A config with what auto-fit asks about it."""

    def __init__(self, pictures: Path, base: str, side: int, **train: Any) -> None:
        lora = train.pop("lora", {})
        quantize = train.pop("quantize", "none")
        dataset = {"resolution": side, "buckets": {"enabled": False}}
        self.config: Config = config_for(
            pictures, model={"base": base, "quantize": quantize}, dataset=dataset, lora=lora, train=train
        )
        self.layout: Layout = lay_out(self.config)
        self.sizes: ModelSizes = model_sizes(self.config.model, self.config.lora)
        self.memory = MemoryModel(self.config, self.sizes, self.layout)

    def fit(self, gigabytes: float) -> Fitted:
        return fit(self.config, self.memory, self.layout, given_room(int(gigabytes * GIB)))


#                   model, side, GB:  batch, accumulation, checkpointing, quantize; from a batch of 4
TABLE = [
    (SD1, 512, 4, (2, 2, "some", "none")),
    (SD1, 512, 6, (2, 2, "off", "none")),
    (SD1, 512, 8, (4, 1, "off", "none")),
    (SD1, 512, 16, (4, 1, "off", "none")),
    (SD1, 512, 80, (4, 1, "off", "none")),
    (SDXL, 1024, 6, (2, 2, "all", "int8")),
    (SDXL, 1024, 8, (2, 2, "all", "none")),
    (SDXL, 1024, 10, (4, 1, "all", "none")),
    (SDXL, 1024, 12, (4, 1, "all", "none")),
    (SDXL, 1024, 16, (2, 2, "some", "none")),
    (SDXL, 1024, 24, (2, 2, "off", "none")),
    (SDXL, 1024, 40, (4, 1, "off", "none")),
    (SDXL, 1024, 80, (4, 1, "off", "none")),
]


@pytest.mark.parametrize(("base", "side", "gigabytes", "expected"), TABLE)
def test_what_fits_on_which_gpu(
    pictures: Path, base: str, side: int, gigabytes: float, expected: tuple[int, int, str, str]
) -> None:
    case = Case(pictures, base, side, batch_size=4)
    found = case.fit(gigabytes)
    fitted = changed(case.config, found.changes)
    train = fitted.train
    got = (train.batch_size, train.gradient_accumulation_steps, train.gradient_checkpointing, fitted.model.quantize)
    assert found.fits and got == expected
    assert found.bytes_after == case.memory.of(fitted).total <= 0.95 * gigabytes * GIB
    assert train.batch_size * train.gradient_accumulation_steps == 4
    assert found == case.fit(gigabytes)
    # Nothing but the levers is touched, and the last step of the explanation is the whole
    before, after = case.config.model_dump(), fitted.model_dump()
    assert {key: after[key] for key in after if key not in ("train", "model")} == {
        key: before[key] for key in before if key not in ("train", "model")
    }
    assert found.steps == [] or found.steps[-1].bytes_after == found.bytes_after


def test_room_is_used_and_what_was_only_for_memory_is_taken_back(pictures: Path) -> None:
    case = Case(
        pictures, SD1, 512, batch_size=1, gradient_accumulation_steps=8, gradient_checkpointing="all", quantize="nf4"
    )
    found = case.fit(80)
    assert found.changes == {
        "train.batch_size": 8,
        "train.gradient_accumulation_steps": 1,
        "train.gradient_checkpointing": "off",
        "model.quantize": "none",
    }


def test_a_larger_batch_is_not_taken_where_the_last_ones_came_short(tmp_path: Path) -> None:
    write_pictures(tmp_path, [(64, 64)] * 7)
    case = Case(tmp_path, SD1, 512, batch_size=1, gradient_accumulation_steps=4)
    assert case.fit(80).changes == {}


def test_caches_are_turned_on_unless_pictures_vary(pictures: Path) -> None:
    cache = {"latents": False, "text": False}
    config = config_for(pictures, model={"base": SDXL}, dataset={"cache": cache, "augment": {"random_crop": True}})
    layout = lay_out(config)
    memory = MemoryModel(config, model_sizes(config.model, config.lora), layout)
    found = fit(config, memory, layout, given_room(8 * GIB))
    assert found.changes == {"dataset.cache.text": True}
    assert memory.of(config).total - found.bytes_after == 817_720_320 * 2  # both text encoders


def test_the_lora_is_rounded_last_and_never_where_its_optimizer_forbids_it(pictures: Path) -> None:
    lora = {"rank": 256, "alpha": 256}
    found = Case(pictures, SDXL, 1024, batch_size=1, lora=lora).fit(10)
    assert found.fits and found.changes["train.lora_precision"] == "bf16" and found.changes["model.quantize"] == "nf4"
    own_rate = Case(pictures, SDXL, 1024, batch_size=1, lora=lora, optimizer="prodigy", learning_rate=1).fit(10)
    assert not own_rate.fits and "train.lora_precision" not in own_rate.changes


@pytest.mark.parametrize(
    ("base", "side", "gigabytes"),
    [(SD1, 512, 3.5), (SD1, 512, 5), (SD1, 512, 7), (SDXL, 1024, 8), (SDXL, 1024, 14), (SDXL, 1024, 24)],
)
def test_each_fix_alone_makes_it_fit(pictures: Path, base: str, side: int, gigabytes: float) -> None:
    case, room = Case(pictures, base, side, batch_size=4), given_room(int(gigabytes * GIB))
    (advice,) = memory_advice(case.config, case.memory, case.layout, room)
    assert advice.fixes
    for offered in advice.fixes:
        mended = changed(case.config, offered.changes)
        assert memory_advice(mended, case.memory, case.layout, room) == []
        assert offered.label and offered.cost


def test_what_cannot_fit_says_so(pictures: Path) -> None:
    case = Case(pictures, SDXL, 1024, batch_size=1)
    (advice,) = memory_advice(case.config, case.memory, case.layout, given_room(1 * GIB))
    assert advice.fixes == [] and "lower dataset.resolution or lora.rank" in advice.hint
    assert not case.fit(1).fits


def test_the_machine_s_memory_is_the_last_resort(pictures: Path) -> None:
    case = Case(pictures, SDXL, 1024, batch_size=1)
    assert "model.offload" not in case.fit(4.5).changes
    found = case.fit(3)
    assert found.fits and found.changes["model.offload"] == 0.5
    whole, half = (case.memory.of(changed(case.config, {"model.offload": share})).weights for share in (0.0, 0.5))
    assert half == whole // 2 + 2 * case.sizes.units.largest_block * 2


def test_the_processor_is_planned_in_float32_with_caches_and_the_parts_that_draw(pictures: Path) -> None:
    case = Case(pictures, SD1, 512, batch_size=1)
    on_gpu = case.memory.of(case.config)
    here = MemoryModel(case.config, case.sizes, case.layout, on_gpu=False).of(case.config)
    assert here.weights == 2 * on_gpu.weights
    kept = (case.sizes.text + case.sizes.vae) * 4
    for change in (
        {"samples.prompts": [{"prompt": "a red circle"}]},
        {"lora.merge_before_training": [{"path": "x.safetensors"}]},
        {"dataset.cache.text": False, "dataset.cache.latents": False},
    ):
        config = changed(case.config, change)
        assert MemoryModel(config, case.sizes, case.layout, on_gpu=False).of(config).weights == here.weights + kept
    latents, text = 8 * 64 * 64 * 4 * 4, 8 * 77 * 768 * 2
    assert here.cache == latents + text and on_gpu.cache == 0
    room = Room("cpu", "the processor", 64 * GIB, 64 * GIB)
    assert memory_advice(case.config, case.memory, case.layout, room) == []


def test_what_if_tells_every_combination(pictures: Path) -> None:
    case, room = Case(pictures, SDXL, 1024, batch_size=4), given_room(16 * GIB)
    rows = what_if(case.config, case.memory, room)
    assert len(rows) == 3 * 3 * 3 and sum(row["chosen"] for row in rows) == 1
    for row in rows:
        other = changed(case.config, row["changes"])
        assert row["bytes"] == case.memory.of(other).total and row["fits"] == room.holds(row["bytes"])
        assert other.train.batch_size * other.train.gradient_accumulation_steps == 4
    assert {row["fits"] for row in rows} == {True, False}

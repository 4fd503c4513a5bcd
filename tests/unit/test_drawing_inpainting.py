"""Inpainting models draw as plain diffusers code does, bit for bit; what cannot be done with them is told."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoPipelineForInpainting
from PIL import Image

from tests.tiny_models import plain_pipeline, tiny_inpainting_model
from tests.unit.single_file_samples import sd1_pipeline, sd1_weights, small_unet, write_file
from tests.unit.test_drawing import (
    CPU,
    DIFFERENT,
    SEED,
    SIZE,
    Model,
    assert_masked_part_alone,
    differing,
    drawn,
    lora_for,
    scheduler,
    start,
)
from trainer.config import LoraSettings, ModelSettings
from trainer.errors import UserError
from trainer.families import load_family, model_folder
from trainer.generate import Painter
from trainer.model_sizes import model_sizes
from trainer.pictures import PictureSettings
from trainer.single_file.convert import model_folder_of
from ui.generate.native_size import native_side

__all__ = ["start"]


@pytest.fixture(scope="module", params=["sd1", "sdxl"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp(request.param)
    painter = Painter(str(tiny_inpainting_model(request.param, folder)), CPU)
    return Model(painter, folder / "model", [lora_for(painter.family, folder / "a.safetensors", 1)])


def over(picture: np.ndarray, image: Image.Image, mask: Image.Image, pipeline: Any) -> np.ndarray:
    """What was drawn in the picture that it was begun with, as diffusers' documentation puts it there."""
    return np.asarray(pipeline.image_processor.apply_overlay(mask, image, Image.fromarray(picture)))


@pytest.mark.parametrize("strength", [0.7, 1.0])
def test_samplers_under_a_mask(model: Model, start: dict[str, Path], strength: float) -> None:
    pipeline = model.plain(1)
    model.use(1)
    image = Image.open(start["init_image"])
    mask = pipeline.mask_processor.blur(Image.open(start["mask"]), 2)

    def plain() -> np.ndarray:
        return over(drawn(pipeline, image=image, mask_image=mask, strength=strength, **SIZE), image, mask, pipeline)

    ours = {"init_image": str(start["init_image"]), "mask": str(start["mask"]), "mask_blur": 2, "strength": strength}
    assert not differing([pipeline], lambda each: model.ours(sampler=each, **ours), plain, DIFFERENT)


def test_the_masked_part_alone(model: Model, start: dict[str, Path]) -> None:
    model.use(0)
    assert_masked_part_alone(model, model.plain(0), start)


def test_without_a_mask_all_is_drawn_anew(model: Model, start: dict[str, Path]) -> None:
    """From a picture, and from a prompt alone, where there is none to be kept."""
    model.use(0)
    pipeline = model.plain(0)
    pipeline.scheduler = scheduler(pipeline, "euler_a")
    given = {"image": Image.open(start["init_image"]), "mask_image": Image.new("L", (72, 64), 255), **SIZE}
    from_picture = model.ours(sampler="euler_a", init_image=str(start["init_image"]), strength=0.6)
    assert np.array_equal(from_picture, drawn(pipeline, **given, strength=0.6))
    assert np.array_equal(model.ours(sampler="euler_a"), drawn(pipeline, **given, strength=1.0))


def test_in_a_second_pass_and_in_a_batch(model: Model, start: dict[str, Path]) -> None:
    model.use(0)
    for way in ({"hires_scale": 1.5}, {"init_image": str(start["init_image"]), "mask": str(start["mask"])}):
        settings = PictureSettings.model_validate({"prompt": "a", "steps": 2, "sampler": "euler_a", **SIZE, **way})
        together = model.painter.draw_together(settings, [5, SEED])
        alone = np.asarray(model.painter.draw(settings, SEED)).astype(int)
        assert np.abs(np.asarray(together[1]).astype(int) - alone).max() <= 1
        assert together[0].size == settings.enlarged((72, 64))


def test_they_are_not_trained(model: Model) -> None:
    settings = ModelSettings(base=str(model.folder))
    assert model_sizes(settings, LoraSettings(), inpainting=True).known
    for refuse in (
        lambda: load_family(settings, device=CPU, dtype=torch.float32),
        lambda: model_sizes(settings, LoraSettings()),
    ):
        with pytest.raises(UserError, match=r"is an inpainting model .* Choose the ordinary model") as caught:
            refuse()
        assert caught.value.problems[0].field == "model.base"


def test_a_single_file_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    ordinary = sd1_pipeline()
    unet = small_unet(in_channels=9).half()
    parts = SimpleNamespace(unet=unet, vae=ordinary.vae, text_encoder=ordinary.text_encoder)
    path = write_file(tmp_path / "model.safetensors", sd1_weights(parts))
    settings = ModelSettings(base=str(path))
    for refuse in (lambda: model_sizes(settings, LoraSettings()), lambda: model_folder(str(path), None)):
        with pytest.raises(UserError, match="is an inpainting model"):
            refuse()
    assert native_side(str(path)) == 512
    painter = Painter(str(path), CPU)
    assert painter.family.reads_masks
    assert torch.equal(painter.family.denoiser.conv_in.weight, unet.float().conv_in.weight)
    kind = json.loads((model_folder_of(path) / "model_index.json").read_text())["_class_name"]
    assert kind == "StableDiffusionInpaintPipeline"
    with pytest.raises(UserError, match="is an inpainting model"):  # also with its folder there
        load_family(settings, device=CPU, dtype=torch.float32)


def test_an_ordinary_model_may_come_as_one_for_inpainting(tmp_path: Path) -> None:
    """diffusers has a pipeline for that too, of which nothing but its name differs."""
    tiny_inpainting_model("sd1", tmp_path)
    AutoPipelineForInpainting.from_pipe(plain_pipeline(tmp_path / "ordinary")).save_pretrained(tmp_path / "named")
    family = load_family(ModelSettings(base=str(tmp_path / "named")), device=CPU, dtype=torch.float32)
    assert not family.reads_masks

"""Pictures equal those of plain diffusers code bit for bit: every sampler, kind of start and number of LoRAs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers import AutoPipelineForImage2Image, AutoPipelineForInpainting
from PIL import Image

from tests.tiny_models import plain_pipeline, tiny_model
from trainer.config import ModelSettings
from trainer.drawing import Progress, draw
from trainer.families import load_family
from trainer.families.base import Family
from trainer.generate import Painter
from trainer.lora.file import LoraFile, LoraLayer, write_lora
from trainer.pictures import LoraUse, PictureSettings
from trainer.sampler_names import SAMPLER_NAMES, Sampler, schedules_of

CPU = torch.device("cpu")
SEED = 7
TEXTS = {"prompt": "a red star on a blue background", "negative_prompt": "green"}
SIZE = {"width": 72, "height": 64}
WEIGHTS = (0.6, -1.4, 0.3)

BY_DOCUMENTATION: dict[str, tuple[str, dict[str, Any]]] = {
    "ddim": ("DDIMScheduler", {}),
    "euler": ("EulerDiscreteScheduler", {}),
    "euler_a": ("EulerAncestralDiscreteScheduler", {}),
    "heun": ("HeunDiscreteScheduler", {}),
    "dpm2": ("KDPM2DiscreteScheduler", {}),
    "dpm2_a": ("KDPM2AncestralDiscreteScheduler", {}),
    "lms": ("LMSDiscreteScheduler", {}),
    "dpmpp_2m": ("DPMSolverMultistepScheduler", {}),
    "dpmpp_2m_sde": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
    "dpmpp_3m_sde": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++", "solver_order": 3}),
    "dpmpp_sde": ("DPMSolverSinglestepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
    "unipc": ("UniPCMultistepScheduler", {}),
    "deis": ("DEISMultistepScheduler", {}),
    "pndm": ("PNDMScheduler", {"skip_prk_steps": True}),
    "ddpm": ("DDPMScheduler", {}),
    "lcm": ("LCMScheduler", {}),
    "tcd": ("TCDScheduler", {}),
}
"""Each sampler's class and options in diffusers' documentation, "Schedulers"."""
DIFFERENT = ("euler_a", "heun", "dpmpp_2m", "pndm", "lcm")
"""Samplers of every kind: with noise of their own, of two stages, with a memory, with a warm-up."""
SCHEDULES: dict[str, dict[str, Any]] = {
    "model": {},
    "uniform": {"timestep_spacing": "linspace"},
    "sgm_uniform": {"timestep_spacing": "trailing"},
    "karras": {"use_karras_sigmas": True},
    "exponential": {"use_exponential_sigmas": True},
    "beta": {"use_beta_sigmas": True},
}


@dataclass
class Model:
    """A tiny model: as we hold it, where it lies, and LoRAs for it."""

    painter: Painter
    folder: Path
    loras: list[Path]

    @property
    def samplers(self) -> tuple[str, ...]:
        """All for the smaller family, some for the other where both go the same way."""
        return tuple(SAMPLER_NAMES) if self.painter.family.name == "sd1" else DIFFERENT

    def plain(self, count: int) -> Any:
        """What somebody would write with diffusers alone."""
        pipeline = plain_pipeline(self.folder)
        names = [f"lora{index}" for index in range(count)]
        for name, path in zip(names, self.loras, strict=False):
            pipeline.load_lora_weights(str(path.parent), weight_name=path.name, adapter_name=name)
        if names:
            pipeline.set_adapters(names, list(WEIGHTS[:count]))
        return pipeline

    def use(self, count: int) -> None:
        pairs = zip(self.loras[:count], WEIGHTS, strict=False)
        self.painter.use([LoraUse(path=str(path), weight=weight) for path, weight in pairs])

    def ours(self, **settings: Any) -> np.ndarray:
        values = {"prompt": TEXTS["prompt"], "negative": "green", "steps": 3, "guidance": 4.0, **SIZE, **settings}
        return np.asarray(self.painter.draw(PictureSettings.model_validate(values), SEED))


@pytest.fixture(scope="module", params=["sd1", "sdxl"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp(request.param)
    painter = Painter(str(tiny_model(request.param, folder / "model")), CPU)
    loras = [lora_for(painter.family, folder / f"{seed}.safetensors", seed) for seed in (1, 2, 3)]
    return Model(painter, folder / "model", loras)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A picture with something in it, and a mask with an odd border."""
    folder = tmp_path_factory.mktemp("start")
    random = np.random.default_rng(3)
    Image.fromarray(random.integers(0, 256, (64, 72, 3), np.uint8)).save(folder / "a.png")
    mask = np.zeros((64, 72), np.uint8)
    mask[11:37, 21:50] = 255
    Image.fromarray(mask).save(folder / "mask.png")
    return {"init_image": folder / "a.png", "mask": folder / "mask.png"}


def lora_for(family: Family, path: Path, seed: int) -> Path:
    """A random LoRA that changes pictures visibly, of UNet and text encoders, with alpha different from rank."""
    random, layers = torch.Generator().manual_seed(seed), {}
    parts = {"unet": family.denoiser, **family.text_encoders}
    for part, module in parts.items():
        for name, layer in module.named_modules():
            if name.endswith(("attn2.to_q", "attn1.to_out.0", "self_attn.out_proj")):
                down = torch.randn(4, layer.weight.shape[1], generator=random) * 0.3
                up = torch.randn(layer.weight.shape[0], 4, generator=random) * 0.3
                layers[family.lora_key(part, name)] = LoraLayer(down, up, 2.0)
    write_lora(path, LoraFile(layers, {}), precision=None)
    return path


def scheduler(pipeline: Any, sampler: str, schedule: str = "model") -> Any:
    name, options = BY_DOCUMENTATION[sampler]
    return getattr(diffusers, name).from_config(pipeline.scheduler.config, **options, **SCHEDULES[schedule])


def drawn(pipeline: Any, **settings: Any) -> np.ndarray:
    values = {"num_inference_steps": 3, "guidance_scale": 4.0, "generator": torch.Generator().manual_seed(SEED)}
    picture = pipeline(**{**TEXTS, **values, **settings}).images[0]
    return picture if isinstance(picture, torch.Tensor) else np.asarray(picture)


def differing(
    pipelines: list[Any],
    ours: Callable[[str], np.ndarray],
    plain: Callable[[], np.ndarray],
    samplers: tuple[str, ...] = tuple(SAMPLER_NAMES),
) -> list[str]:
    """The samplers of which the two pictures are not equal; asserts that the samplers do differ among themselves."""
    own, seen, wrong = pipelines[0].scheduler, set(), []
    for sampler in samplers:
        for pipeline in pipelines:
            pipeline.scheduler = own
            pipeline.scheduler = scheduler(pipeline, sampler)
        expected = plain()
        seen.add(expected.tobytes())
        if not np.array_equal(ours(sampler), expected):
            wrong.append(sampler)
    assert len(seen) > len(samplers) / 2
    return wrong


def test_the_table_has_every_sampler() -> None:
    assert BY_DOCUMENTATION.keys() == SAMPLER_NAMES.keys()


@pytest.mark.parametrize("count", [0, 1, 3])
def test_every_sampler_from_a_prompt(model: Model, count: int) -> None:
    pipeline, steps = model.plain(count), 2 if count else 3
    model.use(count)

    def plain() -> np.ndarray:
        return drawn(pipeline, **SIZE, num_inference_steps=steps)

    assert not differing([pipeline], lambda each: model.ours(sampler=each, steps=steps), plain)


def test_samplers_from_a_picture(model: Model, start: dict[str, Path]) -> None:
    pipeline = AutoPipelineForImage2Image.from_pipe(model.plain(1))
    pipeline.set_progress_bar_config(disable=True)
    model.use(1)
    given = {"image": Image.open(start["init_image"]), "strength": 0.7}
    ours = {"init_image": str(start["init_image"]), "strength": 0.7}
    assert not differing(
        [pipeline], lambda each: model.ours(sampler=each, **ours), lambda: drawn(pipeline, **given), model.samplers
    )


def test_samplers_under_a_mask(model: Model, start: dict[str, Path]) -> None:
    pipeline = AutoPipelineForInpainting.from_pipe(model.plain(1))
    pipeline.set_progress_bar_config(disable=True)
    model.use(1)
    image = Image.open(start["init_image"])
    mask = pipeline.mask_processor.blur(Image.open(start["mask"]), 2)

    def plain() -> np.ndarray:
        picture = drawn(pipeline, image=image, mask_image=mask, strength=0.7, **SIZE)
        return np.asarray(pipeline.image_processor.apply_overlay(mask, image, Image.fromarray(picture)))

    ours = {"init_image": str(start["init_image"]), "mask": str(start["mask"]), "mask_blur": 2, "strength": 0.7}
    assert not differing([pipeline], lambda each: model.ours(sampler=each, **ours), plain, model.samplers)


@pytest.mark.parametrize("model", ["sd2-v"], indirect=True)
def test_velocities(model: Model) -> None:
    pipeline = model.plain(1)
    model.use(1)
    assert not differing([pipeline], lambda each: model.ours(sampler=each), lambda: drawn(pipeline, **SIZE), DIFFERENT)


@pytest.mark.parametrize("upscaler", ["latent", "lanczos"])
def test_samplers_in_a_second_pass(model: Model, upscaler: str) -> None:
    """Two pipelines in a row with one generator."""
    first = model.plain(1)
    second = AutoPipelineForImage2Image.from_pipe(first)
    second.set_progress_bar_config(disable=True)
    model.use(1)

    def plain() -> np.ndarray:
        generator = torch.Generator().manual_seed(SEED)
        if upscaler == "latent":
            latents = drawn(first, **SIZE, generator=generator, output_type="latent")
            start = torch.nn.functional.interpolate(latents[None], size=(96 // 8, 112 // 8), mode="bilinear")
        else:
            start = Image.fromarray(drawn(first, **SIZE, generator=generator)).resize((112, 96), Image.LANCZOS)
        return drawn(second, image=start, strength=0.5, num_inference_steps=4, generator=generator)

    ours = {"hires_scale": 1.5, "hires_steps": 4, "hires_strength": 0.5, "hires_upscaler": upscaler}
    assert not differing([first, second], lambda each: model.ours(sampler=each, **ours), plain, DIFFERENT)


@pytest.mark.parametrize("model", ["sd1"], indirect=True)
def test_every_schedule(model: Model) -> None:
    pipeline = model.plain(0)
    model.use(0)
    own = pipeline.scheduler
    samplers: tuple[Sampler, ...] = ("ddim", "euler", "dpmpp_2m", "heun")
    for sampler, schedule in [(name, each) for name in samplers for each in schedules_of(name)]:
        pipeline.scheduler = own
        pipeline.scheduler = scheduler(pipeline, sampler, schedule)
        assert np.array_equal(model.ours(sampler=sampler, schedule=schedule), drawn(pipeline, **SIZE)), (
            sampler,
            schedule,
        )


def test_without_guidance_and_at_full_strength(model: Model, start: dict[str, Path]) -> None:
    """Guidance of 1 and less leaves the negative prompt out; at full strength a masked part starts from pure noise."""
    model.use(0)
    pipeline = model.plain(0)
    pipeline.scheduler = scheduler(pipeline, "euler_a")
    ours = {"sampler": "euler_a", "init_image": str(start["init_image"]), "strength": 1.0}
    given = {"image": Image.open(start["init_image"]), "strength": 1.0}
    for guidance in (0.0, 1.0, 7.5):
        settings = {"guidance": guidance, "sampler": "euler_a"}
        assert np.array_equal(model.ours(**settings), drawn(pipeline, guidance_scale=guidance, **SIZE))
    from_picture = AutoPipelineForImage2Image.from_pipe(pipeline)
    assert np.array_equal(model.ours(**ours), drawn(from_picture, **given))
    masked, mask = AutoPipelineForInpainting.from_pipe(pipeline), Image.open(start["mask"])
    expected = masked.image_processor.apply_overlay(
        mask, given["image"], Image.fromarray(drawn(masked, mask_image=mask, **given, **SIZE))
    )
    assert np.array_equal(model.ours(**ours, mask=str(start["mask"]), mask_blur=0), expected)


def assert_masked_part_alone(model: Model, pipeline: Any, start: dict[str, Path]) -> None:
    """What is under the mask, drawn in a size of its own, is what a pipeline for inpainting makes of it."""
    pipeline.scheduler = scheduler(pipeline, "ddim")
    mask = pipeline.mask_processor.blur(Image.open(start["mask"]), 1)
    given = {"image": Image.open(start["init_image"]), "mask_image": mask, "strength": 0.9, "width": 64, "height": 64}
    expected = drawn(pipeline, **given, padding_mask_crop=5)
    ours = {"init_image": str(start["init_image"]), "mask": str(start["mask"]), "mask_blur": 1, "strength": 0.9}
    ours |= {"inpaint_area": "masked", "mask_padding": 5, "width": 64, "height": 64}
    assert np.array_equal(model.ours(sampler="ddim", **ours), expected)


def test_the_masked_part_alone(model: Model, start: dict[str, Path]) -> None:
    model.use(1)
    pipeline = AutoPipelineForInpainting.from_pipe(model.plain(1))
    pipeline.set_progress_bar_config(disable=True)
    assert_masked_part_alone(model, pipeline, start)


def test_clip_skip(model: Model) -> None:
    """One layer less, of both texts as in A1111; diffusers itself leaves the negative one as it is."""
    model.use(0)
    pipeline = model.plain(0)
    texts: dict[str, Any] = dict.fromkeys(TEXTS)
    for name, text in TEXTS.items():
        if hasattr(pipeline, "text_encoder_2"):
            encoded = pipeline.encode_prompt(text, clip_skip=1, do_classifier_free_guidance=False)
            texts[f"{name}_embeds"] = encoded[0]
            texts[f"{'negative_' if name.startswith('negative') else ''}pooled_prompt_embeds"] = encoded[2]
        else:
            texts[f"{name}_embeds"] = second_last_layer(pipeline, text)
    pipeline.scheduler = scheduler(pipeline, "ddim")
    expected = drawn(pipeline, **texts, **SIZE)
    assert np.array_equal(model.ours(sampler="ddim", clip_skip=2), expected)
    assert not np.array_equal(model.ours(sampler="ddim"), expected)


def second_last_layer(pipeline: Any, text: str) -> torch.Tensor:
    """As diffusers does it with ``clip_skip`` for SD 1, which newer transformers has broken."""
    tokens = pipeline.tokenizer(text, padding="max_length", truncation=True, return_tensors="pt").input_ids
    with torch.no_grad():
        states = pipeline.text_encoder(tokens, output_hidden_states=True).hidden_states[-2]
        return pipeline.text_encoder.final_layer_norm(states)


def test_steps_are_counted_over_all_passes(model: Model, start: dict[str, Path]) -> None:
    cases = [
        ({"steps": 3}, 3),
        ({"steps": 3, "sampler": "heun"}, 5),
        ({"steps": 3, "hires_scale": 1.5, "hires_strength": 0.7}, 3 + 2),
        ({"steps": 3, "hires_scale": 1.5, "hires_steps": 5, "hires_strength": 0.4}, 3 + 2),
        ({"steps": 5, "init_image": str(start["init_image"]), "strength": 0.5}, 2),
        ({"steps": 3, "init_image": str(start["init_image"]), "strength": 0.01}, 1),
        ({"steps": 3, "init_image": str(start["init_image"]), "strength": 0}, 0),
    ]
    for given, expected in cases:
        seen: list[Progress] = []
        settings = PictureSettings.model_validate({"prompt": "a", **SIZE, **given})
        model.painter.draw(settings, SEED, seen.append)
        assert model.painter.steps(settings) == expected
        assert [(each.done, each.total) for each in seen] == [(done + 1, expected) for done in range(expected)]


def test_pictures_in_one_batch_are_those_of_their_seeds(model: Model, start: dict[str, Path]) -> None:
    ways: list[dict[str, Any]] = [
        {"sampler": "euler_a"},
        {"hires_scale": 1.5, "hires_upscaler": "lanczos"},
        {"init_image": str(start["init_image"]), "mask": str(start["mask"]), "sampler": "ddpm"},
    ]
    for way in ways:
        settings = PictureSettings.model_validate({"prompt": "a", "steps": 2, **SIZE, **way})
        together = model.painter.draw_together(settings, [5, 6, 7])
        alone = [model.painter.draw(settings, seed) for seed in (5, 6, 7)]
        for one, other in zip(together, alone, strict=True):
            most = 3 if "hires_scale" in way else 1  # between passes a pixel may be rounded to the next of 256 levels
            assert np.abs(np.asarray(one).astype(int) - np.asarray(other)).max() <= most
        assert len({each.tobytes() for each in together}) == 3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_model_in_half_precision_draws_in_every_way(model: Model, start: dict[str, Path], dtype: torch.dtype) -> None:
    """As on a GPU; the VAE stays in float32, in which diffusers' own pipelines could not use it here."""
    family = load_family(ModelSettings(base=str(model.folder)), device=CPU, dtype=dtype)
    from_picture = {"init_image": str(start["init_image"])}
    masked = from_picture | {"mask": str(start["mask"]), "sampler": "euler_a"}
    larger = {"hires_scale": 1.5, "sampler": "dpmpp_2m_sde"}
    for way in (
        larger,
        larger | {"hires_upscaler": "lanczos"},
        from_picture,
        masked,
        masked | {"inpaint_area": "masked"},
    ):
        settings = PictureSettings.model_validate({"prompt": "a", "steps": 2, **SIZE, **way})
        seen: list[Progress] = []
        (picture,) = draw(family, settings, [SEED], on_step=seen.append)
        assert np.asarray(picture).std() > 1
        assert {each.step.latents.dtype for each in seen} == {dtype}
    assert family.denoiser.dtype == dtype and family.vae.dtype == torch.float32  # type: ignore[attr-defined]


def test_the_size_that_is_left_open(model: Model, tmp_path: Path) -> None:
    Image.new("RGB", (400, 100)).save(tmp_path / "wide.png")
    Image.new("L", (400, 100), 255).save(tmp_path / "mask.png")
    wide = {"init_image": str(tmp_path / "wide.png")}
    alone = {"mask": str(tmp_path / "mask.png"), "inpaint_area": "masked"}
    for given, expected in [
        ({}, (64, 64)),
        (wide, (128, 64)),
        (wide | alone, (64, 64)),
        (wide | {"width": 96}, (96, 64)),
    ]:
        assert model.painter.size(PictureSettings.model_validate(given)) == expected


def test_a_model_that_reads_the_guidance(model: Model, tmp_path: Path) -> None:
    """Distilled ones: as diffusers, without a negative prompt."""
    pipeline = plain_pipeline(model.folder)
    torch.manual_seed(5)
    config = {**pipeline.unet.config, "time_cond_proj_dim": 16}
    pipeline.unet = diffusers.UNet2DConditionModel.from_config(config)
    pipeline.save_pretrained(tmp_path / "distilled")
    distilled = Model(Painter(str(tmp_path / "distilled"), CPU), tmp_path / "distilled", [])
    pipeline = distilled.plain(0)
    pipeline.scheduler = scheduler(pipeline, "lcm")
    pictures = [drawn(pipeline, **SIZE, guidance_scale=scale) for scale in (1.5, 8.0)]
    assert not np.array_equal(*pictures)
    assert np.array_equal(distilled.ours(sampler="lcm", guidance=8.0), pictures[1])
    assert np.array_equal(distilled.ours(sampler="lcm", guidance=8.0, negative="other"), pictures[1])

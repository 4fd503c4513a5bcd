"""SD 1, SD 2 and SDXL models are told apart, and encode captions and pictures as diffusers' own pipelines do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny_models import KINDS, plain_pipeline, tiny_model
from trainer.config import ModelSettings, Sampler
from trainer.demo import MODEL_DIR
from trainer.errors import UserError
from trainer.families import load_family
from trainer.families.base import Family

CPU = torch.device("cpu")
CAPTIONS = ["a big red circle on a blue background", "", "red circle " * 60]
KNOWN = {"sd1": ("sd1", "sd_v1"), "sd2-v": ("sd2", "sd_v2_v")}


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {kind: tiny_model(kind, folder / kind) for kind in KINDS}


def load(base: Path | str, family: str = "auto", **options: Any) -> Family:
    settings = ModelSettings(base=str(base), family=family)  # type: ignore[arg-type]
    return load_family(settings, device=CPU, dtype=torch.float32, **options)


@torch.no_grad()
def encode(family: Family, captions: list[str], **changes: Any):
    return family.encode_captions(captions, **{"max_token_length": 75, "clip_skip": 1, "weighted": False, **changes})


@pytest.mark.parametrize("kind", KNOWN)
def test_the_family_is_found_by_the_models_own_files(models: dict[str, Path], kind: str) -> None:
    name, version = KNOWN[kind]
    family = load(models[kind])
    assert (family.name, family.base_model_version) == (name, version)
    assert load(models[kind], name).name == name
    assert family.prediction_type == ("v_prediction" if kind.endswith("-v") else "epsilon")


def test_the_demo_model_is_of_the_first_family_although_its_text_is_narrow() -> None:
    assert load("demo").name == "sd1"


def test_text_of_width_1024_makes_a_second_generation(models: dict[str, Path], tmp_path: Path) -> None:
    from trainer.families import FAMILIES

    folder = Path(shutil.copytree(models["sd1"], tmp_path / "model"))
    config = folder / "unet" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "cross_attention_dim": 1024}))
    assert [name for name, loader in FAMILIES.items() if loader.recognises(folder)] == ["sd2"]
    with pytest.raises(UserError):
        load(folder)  # its weights are not


@pytest.mark.parametrize(("kind", "wrong"), [("sd1", "sd2"), ("sd2-v", "sd1")])
def test_another_family_than_the_models_is_refused_with_its_name(
    models: dict[str, Path], kind: str, wrong: str
) -> None:
    with pytest.raises(UserError) as caught:
        load(models[kind], wrong)
    (problem,) = caught.value.problems
    assert (problem.code, problem.field) == ("model.family", "model.family")
    assert f"{wrong} is set" in problem.message
    assert f"({KNOWN[kind][0]})" in problem.message
    assert KNOWN[kind][0] in problem.hint


def test_parts_of_different_widths_are_refused(models: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(models["sd1"], tmp_path / "model"))
    shutil.rmtree(folder / "text_encoder")
    shutil.copytree(MODEL_DIR / "text_encoder", folder / "text_encoder")
    with pytest.raises(UserError, match=r"width 32, its text encoder writes 64"):
        load(folder)


@pytest.mark.parametrize("kind", ["sd1", "sd2-v"])
def test_captions_are_encoded_as_the_pipeline_does(models: dict[str, Path], kind: str) -> None:
    family, pipeline = load(models[kind]), plain_pipeline(models[kind])
    theirs, _ = pipeline.encode_prompt(CAPTIONS, CPU, 1, False)
    ours = encode(family, CAPTIONS)
    assert torch.equal(ours.hidden_states, theirs)
    assert not ours.extra


def test_the_first_of_openclips_vocabulary_is_its_padding(models: dict[str, Path]) -> None:
    """The tiny models are worth testing with only if their padding differs, as that of the real ones does."""
    pads = [plain_pipeline(models[kind]).tokenizer.pad_token_id for kind in ("sd1", "sd2-v")]
    assert pads == [957, 0]


@pytest.mark.parametrize("kind", KNOWN)
def test_pixels_and_latents_are_the_vaes_own(models: dict[str, Path], kind: str) -> None:
    family, vae = load(models[kind]), plain_pipeline(models[kind]).vae
    pixels = torch.rand(1, 3, 32, 48, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        expected = vae.encode(pixels).latent_dist.mode() * (0.13025 if kind.startswith("sdxl") else 0.18215)
        decoded = vae.decode(expected / vae.config.scaling_factor).sample
    assert torch.equal(family.encode_pixels(pixels), expected)
    assert torch.equal(family.decode_latents(expected), decoded)


@pytest.mark.parametrize("sampler", ["ddim", "euler", "dpmpp_2m"])
def test_what_the_settings_say_of_the_noise_reaches_every_sampler(models: dict[str, Path], sampler: Sampler) -> None:
    """The model's file leaves prediction type and rescaling open: diffusers would then put its own defaults first."""
    scheduler = json.loads((models["sd1"] / "scheduler" / "scheduler_config.json").read_text())
    for name in ("prediction_type", "timestep_spacing"):
        scheduler.pop(name)
    folder = models["sd1"].parent / f"open-{sampler}"
    shutil.copytree(models["sd1"], folder)
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler))
    family = load(folder, prediction_type="v_prediction", zero_terminal_snr=True)
    assert family.alphas_cumprod[-1] == 0
    used = family.pipeline(sampler).scheduler
    assert used.config.prediction_type == "v_prediction"
    assert used.alphas_cumprod[-1] < 1e-6
    used.set_timesteps(4)
    assert used.timesteps[0] == 999  # pure noise, where sampling then starts
    plain = load(folder).pipeline(sampler).scheduler
    assert plain.config.prediction_type == "epsilon"
    assert plain.alphas_cumprod[-1] > 1e-3

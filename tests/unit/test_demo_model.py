"""The shipped demo model: small, loadable by stock diffusers, and obedient."""

from __future__ import annotations

import json

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors import safe_open
from transformers import CLIPTokenizer

from trainer.demo import CAPTIONER_DIR, MODEL_DIR, build_text, build_unet, gates, world
from trainer.demo.build_vae import base_pictures, psnr_db

SEED = 77


@pytest.fixture(scope="module")
def pipeline() -> StableDiffusionPipeline:
    return gates.load_pipeline(MODEL_DIR)


def test_everything_fits_into_15_megabytes() -> None:
    assert sum(file.stat().st_size for file in MODEL_DIR.rglob("*") if file.is_file()) <= 15e6


def test_layout_is_diffusers_without_a_safety_checker() -> None:
    index = json.loads((MODEL_DIR / "model_index.json").read_text(encoding="utf-8"))
    parts = {name for name, value in index.items() if isinstance(value, list) and value[0] is not None}
    assert parts == {"scheduler", "text_encoder", "tokenizer", "unet", "vae"}
    assert all((MODEL_DIR / part).is_dir() for part in parts)


def test_the_builders_folders_are_not_named() -> None:
    for file in [*MODEL_DIR.rglob("*config.json"), *CAPTIONER_DIR.rglob("*config.json")]:
        assert '": "/' not in file.read_text(encoding="utf-8"), file


def test_weights_are_float16_and_finite() -> None:
    files = list(MODEL_DIR.rglob("*.safetensors"))
    assert len(files) == 3
    for path in files:
        with safe_open(path, "pt") as file:
            tensors = [file.get_tensor(key) for key in file.keys()]  # noqa: SIM118 - not a dict
        assert all(tensor.isfinite().all() for tensor in tensors)
        assert {tensor.dtype for tensor in tensors if tensor.is_floating_point()} == {torch.float16}


def test_topology_is_stable_diffusion_1(pipeline: StableDiffusionPipeline) -> None:
    unet = pipeline.unet.config
    assert list(unet.down_block_types) == ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"]
    assert list(unet.up_block_types) == ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3
    assert unet.layers_per_block == 2
    assert pipeline.vae_scale_factor == 8
    assert pipeline.scheduler.config.prediction_type == "v_prediction"
    built = {name: value for name, value in build_unet.new_scheduler().config.items() if not name.startswith("_")}
    assert {name: pipeline.scheduler.config[name] for name in built} == built


def test_vae_gate_on_held_out_pictures(pipeline: StableDiffusionPipeline) -> None:
    assert psnr_db(pipeline.vae, base_pictures(SEED, 48)) >= 32.0


def test_tokenizer_round_trip(pipeline: StableDiffusionPipeline) -> None:
    tokenizer = CLIPTokenizer.from_pretrained(MODEL_DIR / "tokenizer")
    assert tokenizer.model_max_length == 77
    text = "a small red circle on a blue background"
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == text
    assert len(ids) == len(text.split()) + 2, "every word of the world is one token"
    for strange in ("sks robot", "café 日本", "x_9!"):
        spelled = tokenizer.decode(tokenizer(strange)["input_ids"], skip_special_tokens=True)
        assert spelled.replace(" ", "") == strange.replace(" ", "")
    for word in (*world.COLOURS, *world.SHAPES, "small", "big", *world.PLAIN_WORDS):
        assert len(tokenizer(word)["input_ids"]) == 3, word


def test_padding_is_the_end_of_text_token_up_to_77(pipeline: StableDiffusionPipeline) -> None:
    ids = build_text.token_ids(pipeline.tokenizer, ["a red ring", ""])
    assert ids.shape == (2, 77)
    assert (ids[1, 1:] == pipeline.tokenizer.eos_token_id).all()


def test_prompts_are_obeyed(pipeline: StableDiffusionPipeline) -> None:
    scores, _ = gates.prompt_scores(pipeline, count=36, seed=SEED)
    assert scores["background"] >= 0.95, scores
    assert scores["colour"] >= 0.95, scores
    assert scores["shape"] >= 0.80, scores
    assert scores["size"] >= 0.80, scores

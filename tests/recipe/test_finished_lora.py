"""The finished file: the same picture in plain diffusers as the run's own preview, and what it says about itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

from tests.recipe.tiny_runs import of_type, train_here
from trainer.demo import MODEL_DIR
from trainer.generate import Painter
from trainer.lora.file import read_lora
from trainer.pictures import LoraUse, PictureSettings, read_settings
from trainer.runs.store import Run, Workspace

PROMPT = {"prompt": "a big red circle", "steps": 6, "guidance": 3.0, "seed": 11, "width": 64, "height": 64}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, config_of) -> Run:
    """UNet and text encoder, convolutions too, alpha different from rank, strong enough to see."""
    config = config_of(
        lora__train="both",
        lora__rank=4,
        lora__alpha=8,
        lora__conv_rank=2,
        lora__target="full",
        train__max_steps=4,
        train__learning_rate=2e-2,
        train__lr_scheduler="constant",
        samples__every_steps=4,
        samples__prompts=[PROMPT],
        samples__at_start=True,
        output__trigger="sks",
    )
    run = Workspace(tmp_path_factory.mktemp("finished")).create_run(config)
    train_here(run)
    return run


def pixels(path_or_picture: object) -> np.ndarray:
    picture = Image.open(path_or_picture) if not isinstance(path_or_picture, Image.Image) else path_or_picture
    return np.asarray(picture.convert("RGB"), dtype=np.int16)


def test_plain_diffusers_and_generate_draw_the_runs_own_preview(run: Run) -> None:
    before, after = (pixels(run.dir / event["path"]) for event in of_type(run, "sample"))
    assert np.abs(after - before).mean() > 5, "the LoRA is strong enough for the comparison to mean something"

    plain = StableDiffusionPipeline.from_pretrained(MODEL_DIR, torch_dtype=torch.float32, local_files_only=True)
    plain.load_lora_weights(run.output_path, use_safetensors=True)
    drawn = plain(
        PROMPT["prompt"],
        num_inference_steps=PROMPT["steps"],
        guidance_scale=PROMPT["guidance"],
        width=64,
        height=64,
        generator=torch.Generator().manual_seed(PROMPT["seed"]),
    ).images[0]
    assert np.abs(pixels(drawn) - after).max() <= 1

    painter = Painter("demo", torch.device("cpu"))
    painter.use([LoraUse(path=str(run.output_path), weight=1.0)])
    ours = painter.draw(PictureSettings(**PROMPT), PROMPT["seed"])
    assert np.abs(pixels(ours) - after).max() <= 1


def test_previews_know_how_they_were_made(run: Run) -> None:
    event = of_type(run, "sample")[-1]
    assert event["path"] == "samples/step-000004-p00-s11.png"
    assert (event["prompt"], event["seed"], event["index"]) == (PROMPT["prompt"], 11, 0)
    settings = read_settings(run.dir / event["path"])
    assert {name: settings[name] for name in PROMPT} == PROMPT


def test_the_file_describes_itself_and_nothing_private(run: Run) -> None:
    lora = read_lora(run.output_path)
    expected = {
        "ss_base_model_version": "sd_v1",
        "ss_v2": "False",
        "ss_network_module": "networks.lora",
        "ss_network_dim": "4",
        "ss_network_alpha": "8",
        "ss_steps": "4",
        "ss_num_train_images": "3",
        "ss_seed": "42",
        "modelspec.architecture": "stable-diffusion-v1/lora",
        "modelspec.prediction_type": "v",
        "modelspec.resolution": "64x64",
        "modelspec.title": "tiny",
        "modelspec.trigger_phrase": "sks",
    }
    assert {name: lora.metadata.get(name) for name in expected} == expected
    assert "sshs_model_hash" in lora.metadata
    everything = " ".join(lora.metadata.values())
    assert str(run.config().dataset.sources[0].path) not in everything
    assert {key.rpartition("_layers")[0] for key in lora.layers if key.startswith("lora_te")} == {
        "lora_te_text_model_encoder"
    }

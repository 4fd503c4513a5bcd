"""ai-toolkit's jobs: what it would train is what is trained here, and every key is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.import_samples import check, files_of, imported, is_valid, note_of, told
from trainer.errors import UserError
from trainer.imports.draft import flattened
from trainer.imports.reading import import_path, import_text, read_text

KIND = "ai_toolkit"
EXPECTED: dict[str, dict[str, Any]] = {
    "sd15_example": {
        "name": "my_first_sd15_lora",
        "model.base": "stable-diffusion-v1-5/stable-diffusion-v1-5",
        "lora.type": "lora",
        "lora.target": "full",
        "lora.rank": 16,
        "lora.alpha": 8,
        "lora.conv_rank": 0,
        "lora.train": "unet",
        "train.optimizer": "adamw8bit",
        "train.optimizer_args": {"eps": 1e-6},
        "train.learning_rate": 1e-4,
        "train.lr_scheduler": "constant",
        "train.max_steps": 2000,
        "train.mixed_precision": "bf16",
        "train.ema": 0.99,
        "train.gradient_checkpointing": "all",
        "loss.type": "l2",
        "loss.min_timestep": 0,
        "loss.max_timestep": 1000,
        "dataset.sources.0.path": "/path/to/images/folder",
        "dataset.sources.0.captions": {"shuffle": False, "dropout": 0.05},
        "dataset.resolution": [512, 768],
        "dataset.captions.prefix": "p3r5on",
        "output.trigger": "p3r5on",
        "output.keep_last": 4,
        "output.precision": "fp16",
        "samples.prompts.0.prompt": "p3r5on holding a sign that says 'I LOVE PROMPTS!'",
        "samples.prompts.1.seed": 43,
        "samples.prompts.1.negative": "blurry",
    },
    "minimal": {
        "lora.rank": 4,
        "lora.alpha": 1,
        "train.optimizer": "adamw",
        "train.learning_rate": 1e-6,
        "train.max_steps": 1000,
        "train.mixed_precision": "no",
        "dataset.sources.0.path": "/data/a",
        "dataset.resolution": 512,
        "output.save_every_steps": 1000,
        "output.keep_last": 5,
    },
    "sdxl_prodigy_te": {
        "name": "xl-prodigy",
        "model.family": "sdxl",
        "lora.rank": 32,
        "lora.alpha": 16,
        "lora.conv_rank": 8,
        "lora.conv_alpha": 4,
        "lora.dropout": 0.1,
        "lora.train": "both",
        "train.optimizer": "prodigy",
        "train.optimizer_args": {
            "eps": 1e-6,
            "weight_decay": 0.01,
            "d_coef": 2,
            "use_bias_correction": True,
            "safeguard_warmup": True,
        },
        "train.learning_rate": 1,
        "train.text_encoder_learning_rate": None,
        "train.lr_scheduler": "cosine",
        "train.lr_min_ratio": 1e-5,
        "train.max_steps": 3000,
        "train.gradient_accumulation_steps": 4,
        "train.prior_loss_weight": 0.5,
        "loss.min_snr_gamma": 5,
        "loss.noise_offset": 0.05,
        "dataset.sources.0.path": "C:\\pics\\girl",
        "dataset.sources.0.repeats": 3,
        "dataset.sources.0.captions": {"shuffle": True, "keep_tokens": 2, "tag_dropout": 0.1},
        "dataset.sources.0.augment": {"flip": True},
        "dataset.sources.1.path": "/data/reg",
        "dataset.sources.1.is_regularization": True,
        "dataset.sources.1.class_prompt": "a photo of ohwx",
        "dataset.resolution": 1024,
        "samples.at_start": False,
        "samples.prompts.0.width": 1024,
        "samples.prompts.1.width": 768,
        "samples.prompts.1.seed": 3,
    },
    "page_job": {
        "name": "from_page",
        "model.family": "sdxl",
        "model.quantize": "none",
        "lora.rank": 32,
        "lora.alpha": 32,
        "lora.conv_rank": 16,
        "lora.conv_alpha": 16,
        "train.optimizer": "adamw8bit",
        "train.optimizer_args": {"eps": 1e-6, "weight_decay": 1e-4},
        "train.ema": None,
        "loss.preserve": None,
        "loss.masked": False,
        "dataset.resolution": [512, 768, 1024],
        "output.trigger": None,
        "samples.prompts.0.guidance": 6,
    },
    "lokr_full_rank": {
        "model.family": "sd1",
        "lora.type": "lokr",
        "lora.rank": 1024,
        "lora.alpha": 1024,
        "lora.conv_rank": 1024,
        "lora.lokr_factor": 8,
        "train.optimizer": "lion",
        "train.lr_scheduler": "constant_with_warmup",
        "train.lr_warmup_steps": 50,
        "loss.type": "l1",
    },
    "lokr_ranked_dadapt": {
        "model.family": "sd2",
        "model.vae": "/vae.safetensors",
        "lora.type": "lokr",
        "lora.rank": 8,
        "lora.alpha": 4,
        "train.optimizer": "dadapt_adam",
        "train.learning_rate": 1,
        "train.max_grad_norm": 0,
        "loss.prediction_type": "v_prediction",
        "loss.min_timestep": 99,
        "loss.max_timestep": 900,
    },
    "bom_crlf_text_numbers": {
        "name": "bom ä",
        "lora.rank": 24,
        "lora.alpha": 12,
        "train.optimizer": "adamw",
        "train.learning_rate": 2e-5,
        "train.max_steps": 1000,
        "train.batch_size": 2,
        "train.gradient_checkpointing": "off",
        "train.mixed_precision": "fp16",
        "dataset.sources.0.path": "D:\\data\\me",
        "dataset.resolution": 640,
        "dataset.buckets.enabled": False,
        "dataset.caption_extension": ".txt",
    },
    "preservation_masks": {
        "model.quantize": "none",  # not for Stable Diffusion there, toolkit/stable_diffusion_model.py
        "train.max_grad_norm": 0,  # nothing is clipped with adafactor, SDTrainer.py
        "lora.exclude": ["time_emb", "conv_in"],
        "lora.include": ["attn2"],
        "train.optimizer": "adafactor",
        "train.optimizer_args": {"scale_parameter": False, "weight_decay": 1e-4},
        "loss.preserve": {"class_word": "dog", "weight": 0.5},
        "loss.masked": "mask",
        "loss.unmasked_weight": 0.2,
        "dataset.sources.0.mask_path": "/data/dog_masks",
        "samples.every_steps": 0,
    },
    "odd_unknown_nulls": {
        "lora.rank": 4,
        "lora.alpha": 4,  # `linear_alpha: null` is the rank, toolkit/lora_special.py
        "train.max_steps": 1000,
        "train.optimizer": "adamw",
        "train.lr_scheduler": "constant",
        "train.mixed_precision": "auto",
        "dataset.sources.1.path": "/data/b",
        "dataset.resolution": [512, 768],
        "loss.masked": "alpha",
        "loss.unmasked_weight": 0.1,
        "output.trigger": "second",
    },
    "lora_from_lora": {
        "lora.type": "dora",
        "lora.init_from": "/loras/first.safetensors",
        "lora.merge_before_training": [{"path": "/loras/base.safetensors", "ratio": 1.0}],
        "lora.train": "text_encoder",
        "train.optimizer": "custom",
        "train.optimizer_class": "torch.optim.Adam",
        "train.lr_scheduler": "polynomial",
        "train.lr_power": 2,
        "dataset.captions.dropout": 0.1,
        "dataset.sources.0.augment": {"random_crop": True},
        "output.precision": "float",
        "output.save_every_steps": 0,
    },
    "flux": {"model.family": "auto", "model.quantize": "none", "lora.rank": 16, "train.optimizer": "adamw8bit"},
    "two_processes": {"lora.rank": 4, "train.optimizer_class": "bitsandbytes.optim.Lion8bit", "train.max_steps": 10},
}


@pytest.mark.parametrize("name", EXPECTED)
def test_settings_are_what_the_file_asked_for(name: str) -> None:
    assert is_valid(check(KIND, name, EXPECTED[name]).config)


def test_there_is_an_expectation_for_each_of_the_twelve_files() -> None:
    assert {path.stem for path in files_of(KIND)} == set(EXPECTED)
    assert len(EXPECTED) == 12


@pytest.mark.parametrize("path", files_of(KIND), ids=lambda path: path.stem)
def test_every_key_is_told(path: Path) -> None:
    keys = flattened(yaml.safe_load(read_text(path)))
    assert {key.removeprefix("config.process.0.") for key in keys} <= set(told(import_path(path).report))


def test_guesses_and_losses_are_told_with_their_reason() -> None:
    report = imported(KIND, "odd_unknown_nulls").report
    assert "automagic is not there" in note_of(report.guessed, "train.optimizer")
    assert "differ in resolution" in note_of(report.guessed, "datasets.0.resolution")
    assert "not a key that is known" in note_of(report.no_equivalent, "network.future_option")
    assert "1 or more" in note_of(report.no_equivalent, "train.steps")
    assert "JSON files" in note_of(report.no_equivalent, "datasets.0.caption_ext")
    assert "only the first" in note_of(imported(KIND, "two_processes").report.no_equivalent, "config.process.1.type")
    assert "cannot be trained here" in note_of(imported(KIND, "flux").report.no_equivalent, "model.is_flux")


def test_a_slider_is_refused() -> None:
    process = "{type: slider, network: {type: lora}, slider: {resolutions: [[512, 512]]}}"
    with pytest.raises(UserError, match="a slider out of prompts"):
        import_text(f"job: train\nconfig:\n  name: a\n  process:\n  - {process}\n", "job.yaml")


def test_a_job_without_a_network_is_refused() -> None:
    with pytest.raises(UserError, match="has no network"):
        import_text("job: train\nconfig:\n  name: a\n  process:\n  - {type: textual_inversion_trainer}\n", "job.yaml")

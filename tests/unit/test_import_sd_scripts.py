"""sd-scripts' TOML files: what it would train is what is trained here, and every key is told."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import tomlkit

from tests.unit.import_samples import check, files_of, imported, is_valid, note_of, told
from trainer.errors import UserError
from trainer.imports.kinds.sd_scripts import with_network_arguments, without_sections
from trainer.imports.reading import import_path, import_text, read_text

KIND = "sd_scripts"
EXPECTED: dict[str, dict[str, Any]] = {
    "flat_keys": {
        "name": "flat",
        "model.base": "/models/sd15.safetensors",
        "lora.rank": 32,
        "lora.alpha": 16,
        "lora.train": "both",
        "train.epochs": 10,
        "train.learning_rate": 2e-4,
        "train.text_encoder_learning_rate": 5e-5,
        "train.optimizer": "adamw8bit",
        "train.lr_scheduler": "cosine_with_restarts",
        "train.lr_num_cycles": 4,
        "train.lr_warmup_steps": 100,
        "train.mixed_precision": "fp16",
        "loss.min_snr_gamma": 5,
        "dataset.sources.0.path": "/data/img",
        "dataset.resolution": 512,
        "dataset.buckets.enabled": True,
        "dataset.buckets.upscale": True,
        "dataset.caption_extension": ".txt",
    },
    "sections": {
        "lora.rank": 16,
        "lora.alpha": 8,
        "train.learning_rate": 5e-4,
        "train.text_encoder_learning_rate": 1e-4,
        "train.optimizer": "adamw8bit",
        "train.optimizer_args": {"weight_decay": 0.1, "betas": [0.9, 0.99]},
        "train.lr_scheduler": "cosine",
        "train.lr_warmup_steps": 0.05,
        "train.epochs": 20,
        "train.batch_size": 6,
        "train.clip_skip": 2,
        "dataset.sources.0.path": "/content/LoRA/train_data",
        "dataset.sources.0.metadata_file": "/content/LoRA/meta_lat.json",
        "dataset.sources.0.repeats": 10,
        "dataset.resolution": [[512, 768]],
        "dataset.captions.shuffle": True,
        "dataset.captions.max_token_length": 225,
        "samples.every_epochs": 1,
        "samples.prompts.0.width": 512,
        "samples.prompts.0.sampler": "euler_a",
        "samples.prompts.1.steps": 30,
    },
    "dataset_only": {
        "lora.rank": 16,
        "train.learning_rate": 1e-4,
        "train.batch_size": 4,
        "dataset.resolution": 768,
        "dataset.sources.0.path": "C:\\hoge",
        "dataset.sources.0.repeats": 10,
        "dataset.sources.0.class_prompt": "hoge girl",
        "dataset.sources.0.captions": {"shuffle": True, "keep_tokens": 2},
        "dataset.sources.1.captions": {"shuffle": True, "keep_tokens": 3},
        "dataset.sources.1.augment": {"flip": True},
        "dataset.sources.2.is_regularization": True,
        "dataset.sources.2.captions": {"shuffle": True, "keep_tokens": 1},
    },
    "with_dataset_config": {
        "lora.type": "loha",
        "lora.rank": 16,
        "lora.alpha": 8,
        "lora.conv_rank": 8,
        "lora.conv_alpha": 4,
        "lora.target": "full",
        "lora.train": "unet",
        "train.optimizer": "prodigy",
        "train.optimizer_args": {"decouple": True, "weight_decay": 0.01, "betas": [0.9, 0.99]},
        "train.learning_rate": 1,
        "train.max_steps": 3000,
        "train.batch_size": 2,
        "loss.masked": "mask",
        "dataset.resolution": [1024, 768],
        "dataset.sources.0.path": "/data/a",
        "dataset.sources.0.repeats": 4,
        "dataset.sources.0.mask_path": "/data/a_masks",
        "dataset.sources.0.captions": {"dropout": 0.1},
        "dataset.sources.1.path": "/data/b",
        "dataset.sources.2": None,
        "dataset.buckets": {"enabled": True, "min": 320, "max": 1536, "step": 32, "upscale": False},
    },
    "only_defaults": {
        "lora.rank": 4,
        "lora.alpha": 1,
        "lora.target": "attention_ff",
        "lora.train": "both",
        "train.optimizer": "adamw",
        "train.learning_rate": 2e-6,
        "train.lr_scheduler": "constant",
        "train.max_steps": 1600,
        "train.mixed_precision": "no",
        "loss.type": "l2",
        "dataset.buckets.enabled": False,
        "dataset.caption_extension": ".caption",
    },
    "bom_crlf_old_names": {
        "model.base": "D:\\models\\any.ckpt",
        "lora.rank": 8,
        "lora.alpha": 4,
        "train.optimizer": "adamw8bit",
        "train.max_steps": 800,
        "train.learning_rate": 1e-4,
        "dataset.sources.0.path": "D:\\bilder ä",
        "dataset.resolution": 640,
        "dataset.buckets.enabled": True,
        "dataset.caption_extension": ".tags",
    },
    "lokr_weights": {
        "lora.type": "lokr",
        "lora.rank": 1024,
        "lora.alpha": 1024,
        "lora.lokr_factor": 16,
        "lora.target": "attention_ff",
        "lora.max_norm": 1,
        "train.optimizer": "custom",
        "train.optimizer_class": "came_pytorch.CAME",
        "train.optimizer_args": {"weight_decay": 0.02, "betas": [0.9, 0.999, 0.9999]},
        "train.lr_scheduler": "cosine",
        "train.lr_warmup_steps": 50,
        "train.lr_decay_steps": 0.2,
        "train.lr_min_ratio": 0.1,
        "train.text_encoder_learning_rate": 1e-5,
        "loss.input_perturbation": 0.05,
    },
    "v_pred_sdxl": {
        "lora.rank": 32,
        "lora.conv_rank": 16,
        "lora.conv_alpha": 8,
        "lora.rank_dropout": 0.1,
        "lora.module_dropout": 0.05,
        "train.loraplus_lr_ratio": 4,
        "train.optimizer": "adafactor",
        "train.optimizer_args": {"scale_parameter": False},
        "train.lr_scheduler": "constant_with_warmup",
        "train.lr_warmup_steps": 0.1,
        "train.lora_precision": "bf16",
        "model.quantize": "fp8",
        "loss.type": "smooth_l1",
        "loss.huber_c": 0.15,
        "loss.huber_schedule": "snr",
        "loss.debiased_estimation": True,
        "loss.zero_terminal_snr": True,
        "loss.prediction_type": "v_prediction",
    },
    "curves_by_block": {
        "train.lr_scheduler": "polynomial",
        "train.lr_power": 2,
        "lora.merge_before_training": [
            {"path": "/loras/a.safetensors", "ratio": 0.5},
            {"path": "/loras/b.safetensors", "ratio": 1.0},
        ],
        "validation.split": 0.1,
        "validation.every_steps": 100,
        "output.save_every_steps": 100,
        "output.keep_last": 4,
    },
    "finetune_captions": {
        "lora.rank": 4,
        "train.max_steps": 100,
        "loss.masked": "alpha",
        "dataset.captions.weighted": True,
        "dataset.sources.0.path": "/data/meta",
        "dataset.sources.0.metadata_file": "/data/meta.json",
        "dataset.sources.0.captions": {
            "separator": ", ",
            "secondary_separator": ";;;",
            "tag_dropout": 0.2,
            "prefix": "photo",
            "wildcards": True,
        },
    },
    "odd_everything": {
        "train.optimizer_class": "torch.optim.RAdam",
        "train.learning_rate": 2e-6,
        "train.max_grad_norm": 1,
        "train.lr_scheduler": "cosine",
        "lora.type": "lora",
        "dataset.buckets.max": 1000,
        "samples.prompts": [],
    },
    "sd21_768": {
        "model.family": "sd2",
        "model.vae": "/models/vae.safetensors",
        "lora.rank": 16,
        "lora.alpha": 8,
        "train.optimizer_class": "bitsandbytes.optim.Lion8bit",
        "train.lr_scheduler": "cosine",
        "train.lr_min_ratio": 0.05,
        "train.epochs": 8,
        "train.prior_loss_weight": 0.7,
        "loss.prediction_type": "v_prediction",
        "loss.noise_offset": 0.1,
        "loss.noise_offset_random_strength": True,
        "loss.adaptive_noise_scale": 0.01,
        "dataset.resolution": 768,
        "dataset.sources.1.is_regularization": True,
        "dataset.augment": {"flip": True, "color": True, "random_crop": False},
        "dataset.cache.latents": False,
        "dataset.captions.dropout_every_n_epochs": 4,
    },
}


@pytest.mark.parametrize("name", EXPECTED)
def test_settings_are_what_the_file_asked_for(name: str) -> None:
    assert is_valid(check(KIND, name, EXPECTED[name]).config)


def test_there_is_an_expectation_for_each_of_the_twelve_files() -> None:
    assert {path.stem for path in files_of(KIND)} == set(EXPECTED)
    assert len(EXPECTED) == 12


@pytest.mark.parametrize("path", files_of(KIND), ids=lambda path: path.stem)
def test_every_key_is_told(path: Path) -> None:
    data = without_sections(tomlkit.parse(read_text(path).replace("\r\n", "\n")).unwrap())
    assert set(with_network_arguments(data)) <= set(told(import_path(path).report))


def test_rates_by_block_follow_the_curve() -> None:
    rates = imported(KIND, "curves_by_block").config.lora.block_lrs
    down = rates[r"^unet\.down_blocks\.1\.downsamplers\.0\."]  # block 6 of 0 to 11, falling
    assert down == pytest.approx(math.sin(math.pi * (5 / 11) / 2) + 0.25)
    assert rates[r"^unet\.mid_block\."] == 0.5
    assert [rate for pattern, rate in rates.items() if "up_blocks" in pattern] == [0, 0, 0, 0]


def test_guesses_and_losses_are_told_with_their_reason() -> None:
    report = imported(KIND, "odd_everything").report
    assert "cosine is the nearest" in note_of(report.guessed, "lr_scheduler")
    assert "not a key that is known" in note_of(report.no_equivalent, "title")
    assert "its file is not here" in note_of(report.no_equivalent, "sample_prompts")
    assert "SECRET" not in str(report)
    report = imported(KIND, "with_dataset_config").report
    assert any("resolution" in line.note or "batch_size" in line.note for line in report.guessed)
    assert "--cn" in note_of(imported(KIND, "sections").report.guessed, "sample_prompts")


def test_broken_toml_is_told() -> None:
    with pytest.raises(UserError, match="not valid TOML"):
        import_text("a = [1,\nb = 2", "settings.toml")

"""What LoRA files say of their training: kohya's metadata, ours, OneTrainer's config."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tests.unit.import_samples import is_valid, note_of, told
from trainer.errors import UserError
from trainer.imports.draft import at
from trainer.imports.reading import import_path

KOHYA = {
    "ss_network_module": "networks.lora",
    "ss_network_dim": "32",
    "ss_network_alpha": "16.0",
    "ss_network_args": json.dumps({"conv_dim": "8", "conv_alpha": "4"}),
    "ss_network_dropout": "None",
    "ss_learning_rate": "0.0001",
    "ss_unet_lr": "0.0002",
    "ss_text_encoder_lr": "5e-05",
    "ss_optimizer": "bitsandbytes.optim.adamw.AdamW8bit(weight_decay=0.1,betas=(0.9, 0.99))",
    "ss_lr_scheduler": "cosine_with_restarts",
    "ss_lr_warmup_steps": "120",
    "ss_max_train_steps": "2400",
    "ss_num_epochs": "10",
    "ss_batch_size_per_device": "2",
    "ss_gradient_accumulation_steps": "1",
    "ss_mixed_precision": "fp16",
    "ss_seed": "1234",
    "ss_clip_skip": "2",
    "ss_max_token_length": "225",
    "ss_resolution": "(512, 768)",
    "ss_enable_bucket": "True",
    "ss_min_bucket_reso": "256",
    "ss_max_bucket_reso": "1024",
    "ss_bucket_no_upscale": "True",
    "ss_shuffle_caption": "True",
    "ss_keep_tokens": "1",
    "ss_noise_offset": "0.05",
    "ss_min_snr_gamma": "5.0",
    "ss_base_model_version": "sd_v1",
    "ss_sd_model_name": "animefull.safetensors",
    "ss_output_name": "mine",
    "ss_dataset_dirs": json.dumps({"10_ohwx": {"n_repeats": 10, "img_count": 20}}),
    "ss_tag_frequency": json.dumps({"10_ohwx": {"1girl": 20}}),
    "ss_session_id": "123",
    "sshs_model_hash": "abc",
}


def lora(folder: Path, metadata: dict[str, str]) -> Path:
    """A file with one small tensor."""
    save_file({"lora_unet_mid_block.lora_down.weight": torch.zeros(1, 1)}, folder / "it.safetensors", metadata)
    return folder / "it.safetensors"


def check(path: Path, expected: dict[str, Any]) -> None:
    config = import_path(path).config
    values = config.model_dump(mode="json")
    assert {name: at(values, name) for name in expected} == expected
    assert is_valid(config)


def test_a_file_of_kohya_gives_its_training(tmp_path: Path) -> None:
    path = lora(tmp_path, KOHYA)
    check(
        path,
        {
            "name": "mine",
            "model.base": "demo",
            "lora.rank": 32,
            "lora.alpha": 16,
            "lora.conv_rank": 8,
            "lora.conv_alpha": 4,
            "lora.train": "both",
            "train.optimizer": "adamw8bit",
            "train.optimizer_args": {"weight_decay": 0.1, "betas": [0.9, 0.99]},
            "train.learning_rate": 2e-4,
            "train.text_encoder_learning_rate": 5e-5,
            "train.lr_scheduler": "cosine_with_restarts",
            "train.lr_warmup_steps": 120,
            "train.max_steps": 2400,
            "train.batch_size": 2,
            "train.seed": 1234,
            "train.clip_skip": 2,
            "loss.min_snr_gamma": 5,
            "loss.noise_offset": 0.05,
            "dataset.resolution": [[512, 768]],
            "dataset.captions.shuffle": True,
            "dataset.captions.max_token_length": 225,
            "dataset.buckets.upscale": False,
        },
    )
    report = import_path(path).report
    assert "choose the model" in note_of(report.no_equivalent, "ss_sd_model_name")
    assert "where they are" in note_of(report.no_equivalent, "ss_dataset_dirs")
    assert set(KOHYA) <= set(told(report))


def test_newer_files_tell_of_their_data_sets_apart(tmp_path: Path) -> None:
    subset = {"img_count": 20, "num_repeats": 10, "is_reg": False, "flip_aug": True, "keep_tokens": 2}
    dataset = {"batch_size_per_device": 4, "resolution": [1024, 1024], "enable_bucket": True, "min_bucket_reso": 320}
    files = {key: value for key, value in KOHYA.items() if "bucket" not in key and "resolution" not in key}
    files = {key: value for key, value in files.items() if key not in ("ss_batch_size_per_device", "ss_keep_tokens")}
    files |= {
        "ss_datasets": json.dumps([{**dataset, "subsets": [subset]}]),
        "ss_base_model_version": "sdxl_base_v1-0",
        "ss_text_encoder_lr": "None",
    }
    check(
        lora(tmp_path, files),
        {
            "model.family": "sdxl",
            "train.batch_size": 4,
            "dataset.resolution": 1024,
            "dataset.buckets.min": 320,
            "dataset.augment.flip": True,
            "dataset.captions.keep_tokens": 2,
            "train.clip_skip": 1,
        },
    )


def test_a_config_of_onetrainer_is_read(tmp_path: Path) -> None:
    inside = {"training_method": "LORA", "lora_rank": 24, "lora_alpha": 12.0, "learning_rate": 1e-4}
    check(lora(tmp_path, {"ot_config": json.dumps(inside)}), {"lora.rank": 24, "lora.alpha": 12})


def test_a_file_that_says_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not say how"):
        import_path(lora(tmp_path, {"format": "pt"}))

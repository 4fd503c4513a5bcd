"""kohya_ss' JSON files: what its page would hand to sd-scripts is what is trained here, and every key is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.import_samples import check, files_of, imported, is_valid, note_of, told
from trainer.errors import UserError
from trainer.imports.reading import import_path

KIND = "kohya_gui"
USUAL = {"path": "/home/me/lora/img", "repeats": 1, "is_regularization": False}
EXPECTED: dict[str, dict[str, Any]] = {
    "untouched_defaults": {
        "name": "last",
        "model.base": "runwayml/stable-diffusion-v1-5",
        "model.family": "auto",
        "lora.type": "lora",
        "lora.target": "attention_ff",
        "lora.rank": 8,
        "lora.alpha": 1,
        "lora.train": "both",
        "train.optimizer": "adamw8bit",
        "train.lr_scheduler": "cosine",
        "train.lr_warmup_steps": 0.1,
        "train.learning_rate": 1e-4,
        "train.text_encoder_learning_rate": 5e-5,
        "train.max_steps": 1600,
        "train.epochs": None,
        "train.seed": 42,
        "train.mixed_precision": "fp16",
        "loss.type": "l2",
        "loss.min_snr_gamma": None,
        "dataset.sources.0.path": "/home/me/lora/img",
        "dataset.resolution": 512,
        "dataset.buckets": {"enabled": True, "min": 256, "max": 2048, "step": 64, "upscale": False},
        "samples.every_steps": 0,
        "output.save_every_epochs": 1,
        "output.keep_last": 1000,
    },
    "sd15_character_reg": {
        "name": "ohwx_v3",
        "lora.rank": 32,
        "lora.alpha": 16,
        "train.epochs": 12,
        "train.batch_size": 2,
        "train.optimizer": "adamw",
        "train.optimizer_args": {"weight_decay": 0.1, "betas": [0.9, 0.99]},
        "train.lr_scheduler": "cosine_with_restarts",
        "train.lr_num_cycles": 3,
        "train.lr_warmup_steps": 0.05,
        "train.clip_skip": 2,
        "train.seed": 1234,
        "train.prior_loss_weight": 0.8,
        "loss.min_snr_gamma": 5,
        "dataset.sources.0.path": "/data/ohwx/img",
        "dataset.sources.0.is_regularization": False,
        "dataset.sources.1.path": "/data/ohwx/reg",
        "dataset.sources.1.is_regularization": True,
        "dataset.captions.shuffle": True,
        "dataset.captions.keep_tokens": 1,
        "dataset.captions.max_token_length": 225,
        "samples.every_epochs": 2,
        "samples.prompts.0.height": 768,
        "samples.prompts.0.sampler": "dpmpp_2m",
        "samples.prompts.1.prompt": "ohwx, beach",
        "output.title": "ohwx",
        "output.keep_last": 4,
    },
    "sdxl_prodigy_text_numbers": {
        "name": "xl style",
        "model.family": "sdxl",
        "lora.rank": 64,
        "lora.alpha": 32,
        "lora.train": "unet",
        "train.optimizer": "prodigy",
        "train.optimizer_args": {
            "decouple": True,
            "weight_decay": 0.01,
            "d_coef": 0.8,
            "use_bias_correction": True,
            "safeguard_warmup": True,
        },
        "train.learning_rate": 1,
        "train.lr_scheduler": "constant_with_warmup",
        "train.lr_warmup_steps": 100,
        "train.max_steps": 2500,
        "train.max_grad_norm": 1,  # the page drops a 0, lora_gui.py train_model
        "train.clip_skip": 1,
        "train.mixed_precision": "bf16",
        "loss.noise_offset": 0.0357,
        "dataset.resolution": 1024,
        "dataset.buckets.step": 32,
        "output.precision": "bf16",
    },
    "lycoris_locon_dora": {
        "lora.type": "dora",
        "lora.target": "attention_ff",
        "lora.rank": 16,
        "lora.alpha": 8,
        "lora.conv_rank": 0,
        "lora.module_dropout": 0.1,
    },
    "lycoris_loha": {
        "lora.type": "loha",
        "lora.target": "full",
        "lora.rank": 8,
        "lora.alpha": 4,
        "lora.conv_rank": 4,
        "lora.conv_alpha": 1,
        "lora.dropout": 0.1,
        "lora.rank_dropout": 0.05,
        "lora.max_norm": 1,
        "train.optimizer": "lion",
        "train.learning_rate": 1e-5,
    },
    "lycoris_lokr_huge_dim": {
        "lora.type": "lokr",
        "lora.rank": 1024,
        "lora.alpha": 1024,
        "lora.lokr_factor": 8,
        "loss.noise_offset": 0,
        "loss.multires_noise": {"iterations": 8, "discount": 0.2},
    },
    "old_with_bom_crlf": {
        "name": "alt ä",
        "lora.rank": 128,
        "lora.alpha": 64,
        "lora.init_from": "/models/start.safetensors",
        "train.optimizer": "dadapt_adam",
        "train.lr_scheduler": "constant",
        "train.lr_warmup_steps": 0,
        "train.epochs": 20,
        "train.learning_rate": 1,
        "train.text_encoder_learning_rate": None,  # D-Adaptation stops at several rates
        "train.seed": 1337,
        "dataset.sources.0.path": "C:\\lora\\bilder",
        "dataset.sources.1": None,
    },
    "kohya_locon_blocks": {
        "lora.type": "lora",
        "lora.target": "full",  # ResNets too, networks/lora.py create_modules
        "lora.conv_rank": 8,
        "lora.conv_alpha": 8,
        "lora.block_ranks": {
            r"^unet\.mid_block\.": 8,
            r"^unet\.up_blocks\.3\.((resnets|attentions)\.2|upsamplers\.0)\.": 4,
        },
        "lora.block_lrs": {r"^unet\.down_blocks\.3\.(resnets|attentions)\.1\.": 0.5, r"^unet\.mid_block\.": 0.25},
        "train.loraplus_lr_ratio": 16,
    },
    "sd21_v_huber": {
        "model.family": "sd2",
        "model.quantize": "fp8",
        "train.optimizer": "paged_adamw8bit",
        "train.gradient_accumulation_steps": 4,
        "train.lora_precision": "bf16",
        "loss.type": "huber",
        "loss.huber_c": 0.2,
        "loss.huber_schedule": "exponential",
        "loss.min_snr_gamma": 1,
        "loss.scale_v_pred_loss_like_noise_pred": False,
        "loss.input_perturbation": 0.1,
        "loss.prediction_type": "v_prediction",
        "loss.min_timestep": 20,
        "loss.max_timestep": 980,
        "dataset.resolution": 768,
    },
    "adafactor_relative": {
        "lora.alpha": 1,  # 0 is dropped, and 1 is sd-scripts' default
        "train.optimizer": "adafactor",
        "train.optimizer_args": {"scale_parameter": False},
        "train.learning_rate": 3e-4,
        "train.text_encoder_learning_rate": None,
        "train.lr_scheduler": "constant_with_warmup",
        "train.epochs": 5,
        "dataset.resolution": [[512, 768]],
        "dataset.augment": {"flip": True, "color": True, "random_crop": True},
        "dataset.cache.latents": False,
    },
    "odd_nulls_unknown_secrets": {
        "name": "a-b-c",
        "lora.rank": 4,
        "lora.alpha": 1,
        "lora.train": "unet",
        "lora.module_dropout": 0.2,
        "train.batch_size": 1,
        "train.max_grad_norm": 0.5,
        "dataset.captions.keep_tokens": 0,
        "dataset.captions.token_warmup_step": 0.2,
        "loss.masked": False,
    },
    "schedulefree_text_encoder": {
        "lora.train": "text_encoder",
        "train.optimizer": "schedule_free_adamw",
        "train.optimizer_args": {"weight_decay": 0.02},
        "train.lr_scheduler": "constant",
        "train.lr_warmup_steps": 0,
        "train.learning_rate": 2e-4,
        "loss.debiased_estimation": True,
        "dataset.buckets.enabled": False,
        "dataset.captions.dropout_every_n_epochs": 3,
        "dataset.captions.weighted": True,
        "output.save_every_steps": 200,
        "output.save_every_epochs": None,
        "output.keep_last": 3,
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
    keys = set(json.loads(path.read_text(encoding="utf-8-sig")))
    assert keys <= set(told(import_path(path).report))


def test_guesses_and_losses_are_told_with_their_reason() -> None:
    report = imported(KIND, "sd21_v_huber").report
    assert "rounded by chance" in note_of(report.guessed, "full_bf16")
    assert "multiplied with min_snr_gamma" in note_of(report.no_equivalent, "scale_v_pred_loss_like_noise_pred")
    report = imported(KIND, "adafactor_relative").report
    assert "its own rate" in note_of(report.guessed, "optimizer")
    assert "passes no 0 on" in note_of(report.guessed, "network_alpha")


def test_a_clean_file_has_nothing_that_is_lost() -> None:
    assert imported(KIND, "untouched_defaults").report.no_equivalent == []


def test_unknown_keys_wrong_values_and_secrets() -> None:
    report = imported(KIND, "odd_nulls_unknown_secrets").report
    lost = {line.source: line for line in report.no_equivalent}
    assert "not a key that is known" in lost["future_setting"].note
    assert "1024 or less" in lost["train_batch_size"].note
    assert lost["keep_tokens"].given == "two"
    assert "SECRET" not in str(report)
    assert lost["wandb_api_key"].given == "(not shown)"


def test_settings_of_other_tabs_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "dreambooth.json"
    path.write_text(json.dumps({"max_resolution": "512,512", "lr_warmup": 10, "epoch": 1}))
    with pytest.raises(UserError, match="not for a LoRA"):
        import_path(path)

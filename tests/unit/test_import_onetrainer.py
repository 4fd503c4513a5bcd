"""OneTrainer's configs of all versions: what it would train is what is trained here, and every key is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.import_samples import check, files_of, imported, is_valid, note_of, told
from trainer.errors import UserError
from trainer.imports.draft import flattened
from trainer.imports.reading import import_path, import_text

KIND = "onetrainer"
ADAM = {"betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.01}
EXPECTED: dict[str, dict[str, Any]] = {
    "full_sd15": {
        "name": "lora",
        "model.base": "stable-diffusion-v1-5/stable-diffusion-v1-5",
        "model.family": "sd1",
        "lora.type": "lora",
        "lora.rank": 16,
        "lora.alpha": 1,
        "lora.conv_rank": 16,
        "lora.conv_alpha": 1,
        "lora.target": "full",
        "lora.train": "both",
        "train.optimizer": "adamw",
        "train.optimizer_args": {**ADAM, "amsgrad": False},
        "train.learning_rate": 3e-4,
        "train.text_encoder_learning_rate": None,
        "train.lr_scheduler": "constant_with_warmup",
        "train.lr_warmup_steps": 200,
        "train.epochs": 50,
        "train.batch_size": 4,
        "train.max_grad_norm": 1,
        "train.mixed_precision": "fp16",
        "train.gradient_checkpointing": "all",
        "train.ema": None,
        "loss.type": "l2",
        "dataset.sources.0.path": "/data/me",
        "dataset.sources.0.augment": {"random_crop": True},
        "dataset.cache.variants": 1,
        "dataset.resolution": 512,
        "dataset.buckets.upscale": True,
        "samples.prompts.0.prompt": "a photo of me",
        "output.save_every_steps": 0,
        "output.precision": "fp16",
    },
    "preset_sdxl": {
        "model.family": "sdxl",
        "lora.rank": 16,
        "lora.alpha": 1,
        "lora.target": "attention_ff",
        "lora.conv_rank": 0,
        "lora.train": "unet",
        "train.optimizer": "adamw",
        "train.epochs": 100,
        "train.lr_warmup_steps": 200,
        "dataset.resolution": 1024,
        "dataset.sources": [],
        "output.precision": "float",
    },
    "prodigy_cosine_ema": {
        "lora.train": "unet",
        "train.optimizer": "prodigy",
        "train.optimizer_args": {
            "betas": [0.9, 0.99],
            "weight_decay": 0.01,
            "decouple": True,
            "use_bias_correction": True,
            "safeguard_warmup": True,
            "d0": 1e-6,
            "d_coef": 0.8,
        },
        "train.learning_rate": 1,
        "train.lr_scheduler": "cosine",
        "train.lr_warmup_steps": 0.05,
        "train.lr_min_ratio": 0.1,
        "train.ema": 0.99,
        "output.save_every_epochs": 5,
        "samples.every_epochs": 2,
    },
    "rates_scaled_restarts": {  # times the root of 4 pictures x 4 batches
        "train.optimizer": "adamw8bit",
        "train.optimizer_args": ADAM,
        "train.learning_rate": 12e-4,
        "train.text_encoder_learning_rate": 4e-4,
        "train.lr_scheduler": "cosine_with_restarts",
        "train.lr_num_cycles": 3,
        "train.lr_warmup_steps": 50,
        "train.max_grad_norm": 0,
        "train.clip_skip": 2,
        "dataset.captions.dropout": 0.1,
        "output.save_every_steps": 100,
    },
    "concepts_many": {
        "dataset.sources.0.path": "D:\\pics\\me",
        "dataset.sources.0.repeats": 3,
        "dataset.sources.0.captions": {"shuffle": True, "keep_tokens": 2, "tag_dropout": 0.15},
        "dataset.sources.0.augment": {"flip": True, "random_crop": False},
        "dataset.sources.1.repeats": 1,
        "dataset.sources.1.augment": {"color": True, "random_crop": True},
        "dataset.sources.2.path": "/data/prior",
        "dataset.sources.2.is_regularization": True,
        "dataset.sources.3": None,
        "dataset.resolution": [512, 768],
        "validation.path": "/data/check",
        "validation.every_steps": 100,
    },
    "lokr_full_matrix": {
        "lora.type": "lokr",
        "lora.rank": 1024,
        "lora.alpha": 1024,
        "lora.lokr_factor": 8,
        "lora.target": "full",  # the filter is for the UNet, the text encoder learns as a whole
        "lora.include": ["attn", "^text_encoder"],
    },
    "dora_custom_layers": {
        "lora.type": "dora",
        "lora.rank": 32,
        "lora.alpha": 32,
        "lora.dropout": 0.05,
        "lora.include": ["attn1", r"ff\.net", "^text_encoder"],
        "lora.init_from": "/loras/start.safetensors",
    },
    "loha_weights_and_noise": {
        "lora.type": "loha",
        "lora.rank": 8,
        "lora.alpha": 4,
        "loss.type": "huber",
        "loss.huber_c": 0.3,
        "loss.min_snr_gamma": 3,
        "loss.noise_offset": 0.05,
        "loss.input_perturbation": 0,
        "loss.timestep_sampling": "logit_normal",
        "loss.logit_mean": -0.4,
        "loss.logit_std": 1.5,
        "loss.min_timestep": 20,
        "loss.max_timestep": 980,
    },
    "version0_bom": {
        "model.base": "/models/model.ckpt",
        "lora.rank": 64,
        "lora.alpha": 64,
        "lora.target": "attention_ff",
        "lora.train": "both",
        "train.optimizer": "adafactor",
        "train.optimizer_args": {
            "eps": [1e-30, 0.001],
            "clip_threshold": 1,
            "decay_rate": -0.8,
            "weight_decay": 0,
            "scale_parameter": False,
        },
        "train.learning_rate": 2e-4,
        "train.text_encoder_learning_rate": 1e-4,
        "train.lr_scheduler": "constant",
        "train.epochs": 20,
        "train.batch_size": 2,
        "train.gradient_checkpointing": "off",
        "train.mixed_precision": "bf16",
        "loss.min_snr_gamma": 5,
        "dataset.sources.0.path": "/data/ä ö",
        "dataset.sources.0.repeats": 2,
        "output.save_every_epochs": 2,
    },
    "sd21_v_samples": {
        "model.family": "sd2",
        "model.quantize": "nf4",
        "train.optimizer": "schedule_free_adamw",
        "train.optimizer_args": {**ADAM, "warmup_steps": 200},  # create.py: the optimizer counts it itself
        "train.lr_scheduler": "constant",
        "train.lr_warmup_steps": 0,
        "loss.debiased_estimation": True,
        "loss.zero_terminal_snr": True,
        "loss.prediction_type": "v_prediction",
        "dataset.resolution": [[768, 512]],
        "samples.prompts.0.width": 768,
        "samples.prompts.0.sampler": "euler_a",
        "samples.prompts.1.prompt": "a dog",
        "samples.prompts.2": None,
    },
    "masked_unknown_secrets": {"lora.rank": 16, "train.epochs": None, "train.optimizer": "adamw", "loss.masked": False},
    "flux": {"model.family": "auto", "train.optimizer": "lion", "train.lr_scheduler": "rex", "loss.type": "l2"},
}


@pytest.mark.parametrize("name", EXPECTED)
def test_settings_are_what_the_file_asked_for(name: str) -> None:
    assert is_valid(check(KIND, name, EXPECTED[name]).config)


def test_there_is_an_expectation_for_each_of_the_twelve_files() -> None:
    assert {path.stem for path in files_of(KIND)} == set(EXPECTED)
    assert len(EXPECTED) == 12


@pytest.mark.parametrize("path", files_of(KIND), ids=lambda path: path.stem)
def test_every_key_is_told(path: Path) -> None:
    keys = set(flattened(json.loads(path.read_text(encoding="utf-8-sig"))))
    assert keys <= set(told(import_path(path).report))


def test_guesses_and_losses_are_told_with_their_reason() -> None:
    report = imported(KIND, "concepts_many").report
    assert "no whole number" in note_of(report.guessed, "concepts.1.balancing")
    assert "captioner" in note_of(report.no_equivalent, "concepts.1.text.prompt_source")
    assert "switched off" in note_of(report.no_effect, "concepts.2.path")
    report = imported(KIND, "masked_unknown_secrets").report
    assert "masklabel" in note_of(report.no_equivalent, "masked_training")
    assert "not a key that is known" in note_of(report.no_equivalent, "future_key")
    assert "not a whole number" in note_of(report.no_equivalent, "lora_rank")
    assert "1 or more" in note_of(report.no_equivalent, "epochs")
    assert "hf_SECRET" not in str(report)
    assert "cannot be trained here" in note_of(imported(KIND, "flux").report.no_equivalent, "model_type")


def test_concepts_and_samples_of_other_files_come_along(tmp_path: Path) -> None:
    (tmp_path / "concepts.json").write_text(json.dumps([{"path": "/data/cat", "balancing": 2}]))
    (tmp_path / "samples.json").write_text(json.dumps([{"prompt": "a cat", "enabled": True}]))
    names = {"concept_file_name": "concepts.json", "sample_definition_file_name": "samples.json"}
    (tmp_path / "config.json").write_text(json.dumps({"training_method": "LORA", **names}))
    config = import_path(tmp_path / "config.json").config
    assert (config.dataset.sources[0].path, config.dataset.sources[0].repeats) == ("/data/cat", 2)
    assert [prompt.prompt for prompt in config.samples.prompts] == ["a cat"]


def test_a_whole_model_is_refused() -> None:
    with pytest.raises(UserError, match="FINE_TUNE trains a whole model"):
        import_text('{"training_method": "FINE_TUNE", "base_model_name": "x"}', "config.json")

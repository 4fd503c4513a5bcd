"""What a LoRA file says about itself: true, complete, in sd-scripts' keys, and nothing that is nobody's business."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from tests.recipe.tiny_runs import make_pictures
from trainer.config import Config
from trainer.config_io import parse_config
from trainer.data.epoch import lay_out
from trainer.data.facts import dataset_facts
from trainer.demo import MODEL_DIR
from trainer.families import load_family
from trainer.families.base import Family
from trainer.lora.base_model_names import base_model_metadata, file_hashes
from trainer.lora.layers import LoraLayer
from trainer.lora.metadata import Progress, training_metadata

_SD_SCRIPTS = """
    ss_session_id ss_output_name ss_learning_rate ss_text_encoder_lr ss_unet_lr ss_num_train_images
    ss_num_validation_images ss_num_reg_images ss_num_batches_per_epoch ss_num_epochs ss_gradient_checkpointing
    ss_gradient_accumulation_steps ss_max_train_steps ss_lr_warmup_steps ss_lr_scheduler ss_network_module
    ss_network_dim ss_network_alpha ss_network_dropout ss_network_args ss_mixed_precision ss_full_fp16 ss_v2
    ss_base_model_version ss_clip_skip ss_max_token_length ss_cache_latents ss_seed ss_lowram ss_noise_offset
    ss_multires_noise_iterations ss_multires_noise_discount ss_adaptive_noise_scale ss_zero_terminal_snr
    ss_training_comment ss_optimizer ss_max_grad_norm ss_caption_dropout_rate ss_caption_dropout_every_n_epochs
    ss_caption_tag_dropout_rate ss_face_crop_aug_range ss_prior_loss_weight ss_min_snr_gamma ss_scale_weight_norms
    ss_ip_noise_gamma ss_debiased_estimation ss_noise_offset_random_strength ss_ip_noise_gamma_random_strength
    ss_loss_type ss_huber_schedule ss_huber_scale ss_huber_c ss_fp8_base ss_fp8_base_unet ss_validation_seed
    ss_validation_split ss_max_validation_steps ss_validate_every_n_epochs ss_validate_every_n_steps
    ss_resize_interpolation ss_batch_size_per_device ss_total_batch_size ss_resolution ss_color_aug ss_flip_aug
    ss_random_crop ss_shuffle_caption ss_enable_bucket ss_bucket_no_upscale ss_min_bucket_reso ss_max_bucket_reso
    ss_keep_tokens ss_bucket_info ss_datasets ss_sd_model_name ss_steps ss_epoch
"""
SD_SCRIPTS_KEYS = set(_SD_SCRIPTS.split())
"""What ``train_network.py`` of sd-scripts 0.10 writes, without its dates, its own version, and names of folders."""
PRIVATE_KEYS = {"ss_tag_frequency", "ss_dataset_dirs", "ss_reg_dataset_dirs"}
DATES = {"ss_training_started_at", "ss_training_finished_at", "modelspec.date"}
PROGRESS = Progress(step=30, epoch=6, max_steps=40, started=1_700_000_000.25, now=1_700_000_060.5)
LAYERS = {"lora_unet_down_blocks_0_attentions_0_proj_in": LoraLayer(torch.zeros(4, 8), torch.zeros(8, 4), 2.0)}


@pytest.fixture(scope="module")
def family() -> Family:
    return load_family(parse_config({}).model, device=torch.device("cpu"), dtype=torch.float32)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five pictures: three in a kohya folder, one wide beside them, one for regularization."""
    root = tmp_path_factory.mktemp("secret-place")
    make_pictures(root / "mine" / "5_sks dog", 3)
    make_pictures(root / "mine", 1)
    Image.new("RGB", (140, 64)).save(root / "mine" / "0.png")
    (root / "mine" / "0.txt").write_text("A Private Thought, big")
    make_pictures(root / "prior-pictures", 1)
    return root


def config_of(folders: Path, **changes: Any) -> Config:
    sources = [
        {"path": str(folders / "mine"), "repeats": 2, "augment": {"flip": True}, "captions": {"shuffle": True}},
        {"path": str(folders / "prior-pictures"), "is_regularization": True, "class_prompt": "dog"},
    ]
    values: dict[str, Any] = {
        "name": "tiny",
        "dataset": {"sources": sources, "resolution": 64, "buckets": {"min": 64, "step": 8}},
        "train": {"batch_size": 2, "gradient_accumulation_steps": 3},
    }
    for name, value in changes.items():
        section, _, key = name.partition("__")
        values.setdefault(section, {})[key] = value
    return parse_config(values)


def written(config: Config, family: Family, progress: Progress = PROGRESS, **base: str) -> dict[str, str]:
    layout = lay_out(config)
    facts = dataset_facts(config, layout.training, layout.validation)
    return training_metadata(config, family, LAYERS, facts, {"ss_sd_model_name": "demo"} | base, progress)


def test_every_key_of_sd_scripts_is_there(folders: Path, family: Family) -> None:
    plain = written(config_of(folders), family)
    assert plain.keys() >= SD_SCRIPTS_KEYS
    assert not plain.keys() & (PRIVATE_KEYS | DATES)
    everything = written(config_of(folders, output__describe_dataset=True, output__dates=True), family)
    assert everything.keys() >= SD_SCRIPTS_KEYS | PRIVATE_KEYS | DATES
    assert all(isinstance(value, str) for value in everything.values())


def test_the_numbers_are_those_of_the_run(folders: Path, family: Family) -> None:
    """3 pictures x 10 and 1 x 2, of two shapes, and as much regularization: 62 views are square, 2 are wide."""
    said = written(config_of(folders), family)
    wide, square = (88, 40), (64, 64)
    assert said["ss_num_train_images"] == "32" and said["ss_num_reg_images"] == "32"
    assert said["ss_num_validation_images"] == "0"
    buckets = json.loads(said["ss_bucket_info"])
    assert [tuple(each["resolution"]) for each in buckets["buckets"].values()] == [square, wide]
    assert [each["count"] for each in buckets["buckets"].values()] == [62, 2]
    assert buckets["mean_img_ar_error"] == pytest.approx((88 / 40 - 140 / 64) / 5)
    assert said["ss_num_batches_per_epoch"] == "32"
    assert said["ss_num_epochs"] == "4", "40 steps of 3 batches, 32 an epoch"
    assert (said["ss_steps"], said["ss_epoch"], said["ss_max_train_steps"]) == ("30", "6", "40")
    assert (said["ss_batch_size_per_device"], said["ss_total_batch_size"]) == ("2", "6")
    (dataset,) = json.loads(said["ss_datasets"])
    assert dataset["resolution"] == [64, 64] and dataset["num_train_images"] == 32
    counted = [(each["img_count"], each["num_repeats"], each["is_reg"]) for each in dataset["subsets"]]
    assert sorted(counted) == [(1, 1, True), (1, 2, False), (3, 10, False)]
    assert {each["flip_aug"] for each in dataset["subsets"] if not each["is_reg"]} == {True}
    assert {each["flip_aug"] for each in dataset["subsets"] if each["is_reg"]} == {False}


def test_two_resolutions_are_two_data_sets(folders: Path, family: Family) -> None:
    config = config_of(folders)
    config.dataset.resolution = [64, 72]
    said = written(config, family)
    assert said["ss_resolution"] == "[(64, 64), (72, 72)]"
    assert [each["resolution"] for each in json.loads(said["ss_datasets"])] == [[64, 64], [72, 72]]
    assert said["ss_num_train_images"] == "64"


def test_folders_and_tags_only_where_asked_for(folders: Path, family: Family) -> None:
    secrets = ["secret-place", "mine", "sks dog", "prior-pictures", "private thought", "Private Thought"]
    plain = written(config_of(folders), family)
    assert not [secret for secret in secrets if secret in json.dumps(plain)]
    said = written(config_of(folders, output__describe_dataset=True), family)
    assert json.loads(said["ss_dataset_dirs"]) == {
        "5_sks dog": {"n_repeats": 10, "img_count": 3},
        "mine": {"n_repeats": 2, "img_count": 1},
    }
    assert json.loads(said["ss_reg_dataset_dirs"]) == {"prior-pictures": {"n_repeats": 1, "img_count": 1}}
    tags = json.loads(said["ss_tag_frequency"])
    assert tags["mine"] == {"a private thought": 1, "big": 1}
    assert tags["5_sks dog"] == {"a big red circle": 3, "number 0": 1, "number 1": 1, "number 2": 1}
    assert "secret-place" not in json.dumps(said)


CHANGES: dict[str, tuple[Any, str, str]] = {
    "train__learning_rate": (0.5, "ss_unet_lr", "0.5"),
    "train__optimizer_args": ({"weight_decay": 0.1}, "ss_optimizer", "adamw(weight_decay=0.1)"),
    "train__lr_scheduler": ("linear", "ss_lr_scheduler", "linear"),
    "train__lr_warmup_steps": (7, "ss_lr_warmup_steps", "7"),
    "train__max_grad_norm": (0.0, "ss_max_grad_norm", "0.0"),
    "train__gradient_checkpointing": (True, "ss_gradient_checkpointing", "True"),
    "train__seed": (0, "ss_seed", "0"),
    "train__clip_skip": (2, "modelspec.encoder_layer", "2"),
    "train__prior_loss_weight": (0.5, "ss_prior_loss_weight", "0.5"),
    "model__quantize": ("fp8", "ss_fp8_base", "True"),
    "train__lora_precision": ("fp16", "ss_full_fp16", "True"),
    "train__ema": (0.9, "ss_ema_decay", "0.9"),
    "lora__max_norm": (1.0, "ss_scale_weight_norms", "1.0"),
    "lora__dropout": (0.1, "ss_network_dropout", "0.1"),
    "lora__train": ("both", "ss_text_encoder_lr", "0.0001"),
    "loss__type": ("huber", "ss_huber_c", "0.1"),
    "loss__min_snr_gamma": (5.0, "ss_min_snr_gamma", "5.0"),
    "loss__debiased_estimation": (True, "ss_debiased_estimation", "True"),
    "loss__noise_offset": (0.05, "ss_noise_offset", "0.05"),
    "loss__multires_noise": ({"iterations": 8, "discount": 0.2}, "ss_multires_noise_iterations", "8"),
    "loss__input_perturbation": (0.1, "ss_ip_noise_gamma", "0.1"),
    "loss__masked": ("alpha", "ss_masked_loss", "alpha"),
    "loss__max_timestep": (900, "modelspec.timestep_range", "0,900"),
    "validation__split": (0.3, "ss_num_validation_images", "1"),
    "output__trigger": ("sks", "modelspec.trigger_phrase", "sks"),
    "output__title": ("A Dog", "modelspec.title", "A Dog"),
    "output__author": ("me", "modelspec.author", "me"),
    "output__license": ("CC0", "modelspec.license", "CC0"),
    "output__description": ("Draws dogs.", "modelspec.description", "Draws dogs."),
    "output__tags": ("dog, pet", "modelspec.tags", "dog, pet"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_setting_is_told(folders: Path, family: Family, name: str) -> None:
    value, key, text = CHANGES[name]
    assert written(config_of(folders), family).get(key) != text
    assert written(config_of(folders, **{name: value}), family)[key] == text


@pytest.mark.parametrize(
    ("captions", "key", "text"),
    [
        ({"dropout": 0.1}, "ss_caption_dropout_rate", "0.1"),
        ({"dropout_every_n_epochs": 3}, "ss_caption_dropout_every_n_epochs", "3"),
        ({"tag_dropout": 0.2}, "ss_caption_tag_dropout_rate", "0.2"),
        ({"keep_tokens": 2}, "ss_keep_tokens", "2"),
        ({"max_token_length": 225}, "ss_max_token_length", "225"),
        ({"weighted": True}, "ss_weighted_captions", "True"),
        ({"token_warmup_step": 9}, "ss_token_warmup_step", "9"),
    ],
)
def test_a_caption_setting_is_told(
    folders: Path, family: Family, captions: dict[str, Any], key: str, text: str
) -> None:
    config = config_of(folders)
    assert written(config, family)[key] != text
    config.dataset.captions = config.dataset.captions.model_copy(update=captions)
    assert written(config, family)[key] == text


def test_the_arguments_of_the_network(folders: Path, family: Family) -> None:
    config = config_of(folders, lora__rank_dropout=0.1, lora__block_ranks={"mid_block": 2}, train__loraplus_lr_ratio=16)
    said = json.loads(written(config, family)["ss_network_args"])
    assert said == {
        "rank_dropout": "0.1",
        "loraplus_lr_ratio": "16.0",
        "target": "attention_ff",
        "block_ranks": '{"mid_block": 2}',
    }


def test_files_of_one_run_have_one_session(folders: Path, family: Family) -> None:
    first = written(config_of(folders), family, Progress(10, 2, 40, 0, 0))
    later = written(config_of(folders), family, Progress(80, 9, 80, 5, 9))
    assert first["ss_session_id"] == later["ss_session_id"]
    assert first["ss_session_id"] != written(config_of(folders, train__seed=1), family)["ss_session_id"]


def test_dates_only_where_asked_for(folders: Path, family: Family) -> None:
    said = written(config_of(folders, output__dates=True), family)
    assert said["ss_training_started_at"] == "1700000000.25" and said["ss_training_finished_at"] == "1700000060.5"
    assert said["modelspec.date"] == "2023-11-14T22:14:20+00:00"
    other = Progress(PROGRESS.step, PROGRESS.epoch, PROGRESS.max_steps, 1.0, 2.0)
    assert written(config_of(folders), family, other) == written(config_of(folders), family)


def test_the_precision_is_the_one_computed_in(folders: Path) -> None:
    family = load_family(parse_config({}).model, device=torch.device("cpu"), dtype=torch.bfloat16)
    assert written(config_of(folders), family)["ss_mixed_precision"] == "bf16"
    precisions = {name: config_of(folders, train__lora_precision=name) for name in ("float32", "bf16", "fp16")}
    said = {name: written(config, family)["ss_full_fp16"] for name, config in precisions.items()}
    assert said == {"float32": "False", "bf16": "False", "fp16": "True"}


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_a_single_files_hashes_are_those_sites_know(tmp_path: Path, own_cache: None) -> None:
    """Computed here from the definition: SHA-256 of the file, and of 64 KiB at 1 MiB."""
    file = tmp_path / "private" / "model-v1.safetensors"
    file.parent.mkdir()
    content = bytes(range(256)) * 4500
    file.write_bytes(content)
    model = parse_config({"model": {"base": str(file), "vae": str(file)}}).model
    said = base_model_metadata(model, lambda: None)
    assert said == {
        "ss_sd_model_name": "model-v1.safetensors",
        "ss_sd_model_hash": hashlib.sha256(content[0x100000:0x110000]).hexdigest()[:8],
        "ss_new_sd_model_hash": hashlib.sha256(content).hexdigest(),
        "ss_vae_name": "model-v1.safetensors",
        "ss_vae_hash": said["ss_sd_model_hash"],
        "ss_new_vae_hash": said["ss_new_sd_model_hash"],
    }
    file.write_bytes(content + b"1")
    assert base_model_metadata(model, lambda: None) != said


def test_folders_and_hub_models_have_a_name() -> None:
    for base, name in ((str(MODEL_DIR), MODEL_DIR.name), ("someone/a-model", "someone/a-model"), ("demo", "demo")):
        model = parse_config({"model": {"base": base}}).model
        assert base_model_metadata(model, lambda: None) == {"ss_sd_model_name": name}


def test_a_file_is_read_once(tmp_path: Path, own_cache: None) -> None:
    file, asked = tmp_path / "a.safetensors", []
    file.write_bytes(b"weights")
    first = file_hashes(file, lambda: asked.append(1))
    assert file_hashes(file, lambda: asked.append(1)) == first and len(asked) == 1
    (note,) = (tmp_path / "cache" / "lora-atelier" / "models" / "hashes").iterdir()
    assert str(tmp_path) not in note.read_text()
    note.write_text("{broken")
    assert file_hashes(file, lambda: asked.append(1)) == first and len(asked) == 2

"""The search over all settings finds each by every name it has anywhere."""

from __future__ import annotations

import pytest

from ui.field_search import names_of, search_index
from ui.fields import CONFIG_FIELDS

THEIRS = {
    "kohya": """
        network_dim=lora.rank network_alpha=lora.alpha conv_dim=lora.conv_rank unet_lr=train.learning_rate
        text_encoder_lr=train.text_encoder_learning_rate train_batch_size=train.batch_size
        epoch=train.epochs max_train_steps=train.max_steps optimizer_type=train.optimizer
        lr_warmup_steps=train.lr_warmup_steps flip_aug=dataset.augment.flip
        shuffle_caption=dataset.captions.shuffle enable_bucket=dataset.buckets.enabled
        bucket_no_upscale=dataset.buckets.upscale min_snr_gamma=loss.min_snr_gamma
        ip_noise_gamma=loss.input_perturbation scale_weight_norms=lora.max_norm
        network_weights=lora.init_from train_data_dir=dataset.sources
        v_parameterization=loss.prediction_type clip_skip=train.clip_skip output_name=name
    """,
    "OneTrainer": """
        lora_rank=lora.rank lora_alpha=lora.alpha lora_decompose=lora.type
        learning_rate_scheduler=train.lr_scheduler learning_rate_warmup_steps=train.lr_warmup_steps
        offset_noise_weight=loss.noise_offset base_model_name=model.base
        perturbation_noise_weight=loss.input_perturbation timestep_distribution=loss.timestep_sampling
        latent_caching=dataset.cache.latents aspect_ratio_bucketing=dataset.buckets.enabled
        clip_grad_norm=train.max_grad_norm concepts=dataset.sources layer_filter=lora.include
        masked_training=loss.masked train_dtype=train.mixed_precision unmasked_weight=loss.unmasked_weight
        text_encoder_layer_skip=train.clip_skip sample_after=samples.every_steps
    """,
    "ai-toolkit": """
        linear=lora.rank linear_alpha=lora.alpha conv=lora.conv_rank lr=train.learning_rate
        steps=train.max_steps folder_path=dataset.sources caption_ext=dataset.caption_extension
        num_repeats=dataset.sources gradient_accumulation=train.gradient_accumulation_steps
        max_step_saves_to_keep=output.keep_last flip_x=dataset.augment.flip
        optimizer_params=train.optimizer_args sample_every=samples.every_steps
        timestep_type=loss.timestep_sampling name_or_path=model.base qtype=model.quantize
        diff_output_preservation=loss.preserve trigger_word=output.trigger
        skip_first_sample=samples.at_start only_if_contains=lora.include pretrained_lora_path=lora.init_from
    """,
    "diffusers": """
        pretrained_model_name_or_path=model.base max_train_steps=train.max_steps
        num_train_epochs=train.epochs snr_gamma=loss.min_snr_gamma random_flip=dataset.augment.flip
        checkpointing_steps=output.save_every_steps checkpoints_total_limit=output.keep_last
        use_8bit_adam=train.optimizer validation_prompt=samples.prompts instance_data_dir=dataset.sources
        instance_prompt=dataset.sources train_text_encoder=lora.train adam_weight_decay=train.optimizer_args
        dataset_name=dataset.sources prediction_type=loss.prediction_type
    """,
}
"""Names of other trainers, and the settings of ours that they stand for."""


@pytest.mark.parametrize("peer", THEIRS)
def test_other_trainers_names_lead_to_ours(peer: str) -> None:
    words = {field.name: names_of(field) for field in CONFIG_FIELDS}
    pairs = [pair.split("=") for pair in THEIRS[peer].split()]
    assert len(pairs) > 12
    assert [(theirs, ours) for theirs, ours in pairs if theirs not in words[ours]] == []


def test_no_name_of_others_leads_to_two_settings_of_ours() -> None:
    named = [name for field in CONFIG_FIELDS for name in field.also]
    twice = {name for name in named if named.count(name) > 1}
    assert twice <= {"weight_dtype"}  # of the model and of the LoRA


def test_the_index_holds_every_setting_with_its_names_and_help() -> None:
    entries = {entry["name"]: entry for entry in search_index(CONFIG_FIELDS)}
    assert list(entries) == [field.name for field in CONFIG_FIELDS]
    assert entries["lora.rank"]["names"][:3] == ["Rank", "lora.rank", "rank"]  # type: ignore[index]
    assert "learn" in str(entries["lora.rank"]["help"])


def test_the_folders_are_found_by_their_columns() -> None:
    names = names_of(next(field for field in CONFIG_FIELDS if field.kind == "rows"))
    assert {"Repeats", "mask_path", "class_tokens", "in_json"} <= set(names)

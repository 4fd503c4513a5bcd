"""Arguments of sd-scripts' ``train_network.py``, which kohya_ss' settings, its TOML files and LoRA metadata all are.

Names, defaults and meanings: sd-scripts v0.10.1, ``library/train_util.py`` (``add_*_arguments``, ``get_optimizer``,
``get_scheduler_fix``), ``train_network.py`` (``setup_parser``) and ``docs/train_network_README.md``.
"""

from __future__ import annotations

import math
from typing import Any

from trainer.imports import values
from trainer.imports.base import ReadText
from trainer.imports.draft import Draft, Rule
from trainer.imports.sd_datasets import put_datasets
from trainer.imports.sd_network import put_network
from trainer.imports.sd_optimizer import put_rates_and_optimizer
from trainer.imports.sd_samples import put_samples

DEFAULTS: dict[str, Any] = {
    "network_dim": 4,
    "network_alpha": 1,
    "network_module": "networks.lora",
    "learning_rate": 2e-6,
    "optimizer_type": "AdamW",
    "lr_scheduler": "constant",
    "lr_warmup_steps": 0,
    "lr_scheduler_num_cycles": 1,
    "lr_scheduler_power": 1,
    "max_train_steps": 1600,
    "train_batch_size": 1,
    "gradient_accumulation_steps": 1,
    "max_grad_norm": 1.0,
    "mixed_precision": "no",
    "gradient_checkpointing": False,
    "caption_extension": ".caption",
    "keep_tokens": 0,
    "enable_bucket": False,
    "min_bucket_reso": 256,
    "max_bucket_reso": 1024,
    "bucket_reso_steps": 64,
    "bucket_no_upscale": False,
    "loss_type": "l2",
    "huber_schedule": "snr",
    "huber_c": 0.1,
    "huber_scale": 1.0,
    "multires_noise_discount": 0.3,
    "prior_loss_weight": 1.0,
    "save_precision": "float",
    "save_every_n_steps": 0,
    "sample_sampler": "ddim",
    "sample_at_first": False,
}

KEEPS_ALL = 1000
"""Checkpoints kept where the other program removes none."""

MACHINE = (
    "xformers", "sdpa", "mem_eff_attn", "lowram", "lowvram", "highvram", "max_data_loader_n_workers",
    "persistent_data_loader_workers", "vae_batch_size", "skip_cache_check", "cache_info", "no_half_vae",
    "disable_mmap_load_safetensors", "torch_compile", "dynamo_backend", "dynamo_mode", "dynamo_use_fullgraph",
    "dynamo_use_dynamic", "num_cpu_threads_per_process", "num_processes", "num_machines", "multi_gpu", "gpu_ids",
    "main_process_port", "extra_accelerate_launch_args", "ddp_timeout", "ddp_gradient_as_bucket_view",
    "ddp_static_graph", "tokenizer_cache_dir", "debug_dataset", "cpu_offload_checkpointing",
    "text_encoder_batch_size", "async_upload", "output_config", "deepspeed", "zero_stage",
    "cache_text_encoder_outputs_to_disk", "console_log_level", "console_log_file", "console_log_simple",
    "dataset_class", "config_file", "fused_backward_pass", "mem_eff_save", "offload_optimizer_device",
    "offload_optimizer_nvme_path", "offload_param_device", "offload_param_nvme_path", "zero3_init_flag",
    "zero3_save_16bit_model", "fp16_master_weights_and_gradients",
)  # fmt: skip
PLACES = (
    "output_dir", "logging_dir", "log_prefix", "wandb_run_name", "log_config", "save_model_as",
    "use_safetensors", "save_state", "save_state_on_train_end", "save_last_n_epochs_state", "save_last_n_steps_state",
    "no_metadata", "metadata_usage_hint", "metadata_thumbnail", "metadata_merged_from", "metadata_preprocessor",
    "metadata_is_negative_embedding",
)  # fmt: skip
OTHER_FAMILIES = (
    "ae", "clip_l", "clip_g", "t5xxl", "t5xxl_device", "t5xxl_dtype", "t5xxl_max_token_length", "discrete_flow_shift",
    "model_prediction_type", "timestep_sampling", "guidance_scale", "apply_t5_attn_mask", "blocks_to_swap",
    "split_mode", "weighting_scheme", "logit_mean", "logit_std", "mode_scale", "clip_l_dropout_rate",
    "clip_g_dropout_rate", "t5_dropout_rate", "pos_emb_random_crop_rate", "enable_scaled_pos_embed", "save_clip",
    "save_t5xxl", "sigmoid_scale", "training_shift", "model_type", "single_blocks_to_swap", "double_blocks_to_swap",
)  # fmt: skip
NO_EQUIVALENT = {
    "face_crop_aug_range": "cropped around faces; crop them in the Dataset tab's editor instead",
    "ip_noise_gamma_random_strength": "drew the strength anew each step; here it is always the whole",
    "resize_interpolation": "chose how pictures are resized; here it is area for smaller and Lanczos for larger",
    "train_inpainting": "inpainting models cannot be trained here",
    "huggingface_repo_id": "uploaded to the Hub; set output.hub_repo, or share the finished run",
    "huggingface_repo_type": "uploaded to the Hub; set output.hub_repo, or share the finished run",
    "huggingface_repo_visibility": "uploaded to the Hub; set output.hub_repo, or share the finished run",
    "huggingface_path_in_repo": "uploaded to the Hub; set output.hub_repo, or share the finished run",
    "huggingface_token": "secrets are never read from a file; set HF_TOKEN in the environment",
    "save_state_to_huggingface": "uploaded to the Hub; checkpoints stay in the run's folder",
    "resume_from_huggingface": "runs are resumed from their own folder; start from a LoRA with lora.init_from",
    "wandb_api_key": "secrets are never read from a file; set WANDB_API_KEY in the environment",
    "log_with": "a tracker that is not there; see trackers",
    "log_tracker_config": "configured the tracker; use its environment variables",
    "v_pred_like_loss": "added a v-prediction weight; loss.debiased_estimation or loss.min_snr_gamma are near it",
    "resume": "runs are resumed from their own folder; start from a LoRA with lora.init_from",
    "save_n_epoch_ratio": "saved so many files in all; set output.save_every_epochs",
    "lr_scheduler_timescale": "was for inverse_sqrt, which there is not",
    "dim_from_weights": "took the rank from the LoRA that is started from; set lora.rank to that LoRA's",
    "validation_seed": "chose the noise of the validation; here train.seed does",
    "max_validation_steps": "limited the validation; here all its pictures are looked at",
    "skip_until_initial_step": "skipped steps; a run here is resumed exactly",
    "initial_epoch": "skipped epochs; a run here is resumed exactly",
    "initial_step": "skipped steps; a run here is resumed exactly",
    "train_norm": "trained norm layers; LoRAs here have none",
    "training_adapter": "merged an adapter; use lora.merge_before_training",
}
TRAINS_NO_LORA = (
    "train_db",
    "fine_tune",
    "train_textual_inversion",
    "train_controlnet",
    "sdxl_train.py",
    "sd3_train.py",
)

_TRACKERS = {"tensorboard": ["tensorboard"], "wandb": ["wandb"], "all": ["tensorboard", "wandb"]}
_RULES = (
    Rule("log_tracker_name", "tracking.project", values.text),
    Rule("output_name", "name", lambda given: values.run_name(values.text(given))),
    Rule("pretrained_model_name_or_path", "model.base", values.text),
    Rule("vae", "model.vae", values.text),
    Rule("train_batch_size", "train.batch_size", values.whole),
    Rule("gradient_accumulation_steps", "train.gradient_accumulation_steps", values.whole),
    Rule("gradient_checkpointing", "train.gradient_checkpointing", values.flag),
    Rule("mixed_precision", "train.mixed_precision", values.text),
    Rule("max_grad_norm", "train.max_grad_norm", values.number),
    Rule("seed", "train.seed", values.whole),
    Rule("prior_loss_weight", "train.prior_loss_weight", values.number),
    Rule("save_precision", "output.precision", values.text),
    Rule("metadata_title", "output.title", values.text),
    Rule("metadata_author", "output.author", values.text),
    Rule("metadata_license", "output.license", values.text),
    Rule("metadata_tags", "output.tags", values.text),
    Rule("metadata_trigger_phrase", "output.trigger", values.text),
    Rule("validation_split", "validation.split", values.number),
    Rule("validate_every_n_steps", "validation.every_steps", values.whole),
    Rule("validate_every_n_epochs", "validation.every_epochs", values.whole),
)


def put_arguments(draft: Draft, companion: ReadText, *, sdxl: bool | None) -> None:
    """Take over everything that sd-scripts knows.

    Args:
        draft: with sd-scripts' names as keys; arguments of the network as ``network_args.conv_dim``.
        companion: reads the prompt file and the dataset config.
        sdxl: whether it trains SDXL; None where the file does not say.
    """
    draft.apply(_RULES)
    if not draft.is_given("seed"):
        draft.unused("seed", "empty: another seed each time there")
    _put_family(draft, sdxl)
    put_network(draft, sdxl=sdxl)
    put_rates_and_optimizer(draft)
    _put_length(draft)
    _put_saving(draft)
    _put_precision(draft)
    _put_clip_skip(draft, sdxl)
    _put_weighting(draft)
    _put_noise(draft)
    put_samples(draft, companion)
    put_datasets(draft, companion)
    if draft.text("log_with").lower() in _TRACKERS:
        draft.put("trackers", _TRACKERS[draft.text("log_with").lower()], "log_with")
    draft.all_lost(NO_EQUIVALENT)
    draft.unused("stop_text_encoder_training", "not for a LoRA there either: the text encoder learns to the end")
    draft.all_unused(MACHINE, "how that program used its machine; it changes nothing of what is learned")
    draft.all_unused(PLACES, "where and how files were kept; here everything is in the run's folder")
    draft.all_unused(OTHER_FAMILIES, "for FLUX, SD 3 and other families")


def _put_family(draft: Draft, sdxl: bool | None) -> None:
    if sdxl:
        draft.put("model.family", "sdxl", "sdxl" if draft.is_given("sdxl") else "script")
    elif draft.flag("v2"):
        draft.put("model.family", "sd2", "v2")
    for key in ("sdxl", "v2"):
        draft.unused(key, "off in the file; the family is found by the model's files")
    if draft.flag("v_parameterization"):
        draft.put("loss.prediction_type", "v_prediction", "v_parameterization")
    draft.unused("v_parameterization", "off in the file; what the model predicts is read from it")
    if draft.flag("zero_terminal_snr"):
        draft.put("loss.zero_terminal_snr", True, "zero_terminal_snr")
    draft.unused("zero_terminal_snr", "off in the file")
    for key in ("fp8_base", "fp8_base_unet"):
        if draft.flag(key):
            draft.put("model.quantize", "fp8", key)
        draft.unused(key, "off in the file")


def _put_length(draft: Draft) -> None:
    """``max_train_epochs`` wins over ``max_train_steps``, which is 1600 unless given."""
    epochs = draft.whole("max_train_epochs")
    if epochs:
        draft.put("train.epochs", epochs, "max_train_epochs")
        draft.unused("max_train_steps", "max_train_epochs wins over it")
        return
    draft.unused("max_train_epochs", "empty in the file")
    draft.put("train.max_steps", draft.whole("max_train_steps"), "max_train_steps")


def _put_saving(draft: Draft) -> None:
    epochs, steps = draft.whole("save_every_n_epochs"), draft.whole("save_every_n_steps")
    if epochs:
        draft.put("output.save_every_epochs", epochs, "save_every_n_epochs")
    draft.put("output.save_every_steps", steps or 0, "save_every_n_steps")
    if epochs and steps:
        draft.lost("save_every_n_steps", "saved by steps and by epochs; here epochs win. Use output.save_at for others")
    draft.unused("save_every_n_epochs", "empty in the file")
    kept = draft.whole("save_last_n_epochs") if epochs else None
    if kept:
        draft.put("output.keep_last", kept, "save_last_n_epochs")
    elif steps and (span := draft.whole("save_last_n_steps")):
        draft.put("output.keep_last", math.ceil(span / steps) + 1, "save_last_n_steps", note="counted in checkpoints")
    elif epochs or steps:
        key = "save_every_n_epochs" if epochs else "save_every_n_steps"
        note = "every checkpoint is kept there; here each can be resumed from and takes more disk, see output.keep_last"
        draft.put("output.keep_last", KEEPS_ALL, key, note=note)
    draft.all_unused(("save_last_n_epochs", "save_last_n_steps"), "nothing is removed by it")


def _put_precision(draft: Draft) -> None:
    for key, precision in (("full_bf16", "bf16"), ("full_fp16", "fp16")):
        if draft.flag(key):
            note = "kept in 16 bits; here updates are rounded by chance, so that small ones are not lost"
            draft.put("train.lora_precision", precision, key, note=note)
        draft.unused(key, "off in the file")


def _put_clip_skip(draft: Draft, sdxl: bool | None) -> None:
    skip = draft.whole("clip_skip")
    if skip and skip > 1 and sdxl:
        draft.unused("clip_skip", "SDXL always reads the same layer there, as here at 1")
    elif skip:
        draft.put("train.clip_skip", skip, "clip_skip")
    draft.unused("clip_skip", "empty in the file")


def _put_weighting(draft: Draft) -> None:
    """Loss and weights of noise levels. There several weights are multiplied; here there is one."""
    draft.put("loss.type", draft.text("loss_type"), "loss_type")
    if draft.text("loss_type") in ("huber", "smooth_l1"):
        _put_huber(draft)
    draft.all_unused(
        ("huber_c", "huber_schedule", "huber_scale"), f"loss_type {draft.text('loss_type')} has no use for it"
    )
    wanted: list[tuple[str, str, Any]] = [
        ("min_snr_gamma", "loss.min_snr_gamma", draft.number("min_snr_gamma")),
        ("debiased_estimation_loss", "loss.debiased_estimation", draft.flag("debiased_estimation_loss")),
        ("scale_v_pred_loss_like_noise_pred", "loss.scale_v_pred_loss_like_noise_pred",
         draft.flag("scale_v_pred_loss_like_noise_pred")),
    ]  # fmt: skip
    chosen = [each for each in wanted if each[2]]
    for key, setting, value in chosen[:1]:
        draft.put(setting, value, key)
    for key, _, _ in chosen[1:]:
        draft.lost(key, f"multiplied with {chosen[0][0]}; only one weighting of noise levels is used here")
    draft.all_unused([key for key, _, _ in wanted], "off in the file")
    for key, setting, least in (("min_timestep", "loss.min_timestep", 0), ("max_timestep", "loss.max_timestep", 1)):
        timestep = draft.whole(key)
        if timestep is not None and timestep >= least:
            draft.put(setting, timestep, key)
        draft.unused(key, "empty in the file")


def _put_huber(draft: Draft) -> None:
    """``huber_scale`` multiplies the threshold, but not that of the schedule ``snr``."""
    schedule, threshold = draft.text("huber_schedule"), draft.number("huber_c") or 0.0
    scale = draft.number("huber_scale") or 1.0
    if schedule == "constant" and scale != 1:
        draft.put("loss.huber_c", threshold * scale, "huber_c", "huber_scale")
    else:
        draft.put("loss.huber_c", threshold, "huber_c")
    if schedule == "exponential" and scale != 1:
        draft.lost("huber_scale", "multiplied the threshold at every noise level; see loss.huber_c")
    draft.unused("huber_scale", f"changes nothing with the schedule {schedule}")
    draft.put("loss.huber_schedule", schedule, "huber_schedule")


def _put_noise(draft: Draft) -> None:
    offset = draft.number("noise_offset")
    if offset:
        draft.put("loss.noise_offset", offset, "noise_offset")
        if draft.flag("noise_offset_random_strength"):
            draft.put("loss.noise_offset_random_strength", True, "noise_offset_random_strength")
        if adaptive := draft.number("adaptive_noise_scale"):
            draft.put("loss.adaptive_noise_scale", adaptive, "adaptive_noise_scale")
    draft.all_unused(
        ("noise_offset", "noise_offset_random_strength", "adaptive_noise_scale"), "there is no noise offset"
    )
    iterations = draft.whole("multires_noise_iterations")
    if iterations:
        pyramid = {"iterations": iterations, "discount": draft.number("multires_noise_discount")}
        draft.put("loss.multires_noise", pyramid, "multires_noise_iterations", "multires_noise_discount")
    draft.all_unused(("multires_noise_iterations", "multires_noise_discount"), "there is no pyramid noise")
    if gamma := draft.number("ip_noise_gamma"):
        draft.put("loss.input_perturbation", gamma, "ip_noise_gamma")
    draft.unused("ip_noise_gamma", "off in the file")

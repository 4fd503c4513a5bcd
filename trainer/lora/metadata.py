"""What a trained LoRA file says about itself.

Nothing of it depends on where it was trained, and on when only where that is asked for: the same training gives the
same file. Names of folders, class prompts and tags stay out unless they are asked for: a LoRA is often shared by people
who do not want to share those. The keys are those of sd-scripts' ``train_network.py`` as far as they apply.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import torch

from trainer.config import Config, DatasetSettings
from trainer.data.buckets import resolutions
from trainer.data.facts import DatasetFacts
from trainer.families.base import Family
from trainer.lora.dataset_metadata import dataset_metadata
from trainer.lora.file import network_metadata
from trainer.lora.layers import Layer

_PRECISIONS = {torch.float32: "no", torch.float16: "fp16", torch.bfloat16: "bf16"}


@dataclass(frozen=True)
class Progress:
    """How far a run was when a file was written, counted over all its sessions.

    Attributes:
        step: optimizer steps done.
        epoch: epochs done.
        max_steps: of the whole run, as extended.
        started: Unix seconds of the run's first start.
        now: Unix seconds.
    """

    step: int
    epoch: int
    max_steps: int
    started: float
    now: float


def training_metadata(
    config: Config,
    family: Family,
    layers: Mapping[str, Layer],
    facts: DatasetFacts,
    base_model: Mapping[str, str],
    progress: Progress,
) -> dict[str, str]:
    """``ss_*`` keys as kohya's tools write them and ``modelspec.*`` of sai_model_spec 1.0.1.

    Args:
        config: the run's settings.
        family: the model.
        layers: of the LoRA.
        facts: what was trained on.
        base_model: names and hashes, see ``base_model_metadata``.
        progress: how far.
    """
    network = network_metadata(layers, family.base_model_version)
    network["ss_network_args"] = json.dumps(json.loads(network["ss_network_args"]) | _network_arguments(config))
    values: dict[str, Any] = {
        "ss_output_name": config.name,
        "ss_training_comment": config.output.description,
        **_schedule_of(config, family, facts.processes),
        **_captions_and_pictures(config.dataset),
        **_loss_of(config, family),
        **_validation_of(config),
        **dataset_metadata(config, facts),
        **base_model,
        **network,
    }
    values["ss_session_id"] = _session_id(values)
    values |= _progress_of(config, facts, progress)
    described = {name: str(value) for name, value in values.items()}
    return described | _modelspec(config, family, progress)


def _progress_of(config: Config, facts: DatasetFacts, progress: Progress) -> dict[str, Any]:
    batches = progress.max_steps * config.train.gradient_accumulation_steps
    told: dict[str, Any] = {
        "ss_steps": progress.step,
        "ss_epoch": progress.epoch,
        "ss_max_train_steps": progress.max_steps,
        "ss_num_epochs": math.ceil(batches / facts.batches_per_epoch),
        "ss_num_batches_per_epoch": facts.batches_per_epoch,
    }
    if config.output.dates:
        told |= {"ss_training_started_at": progress.started, "ss_training_finished_at": progress.now}
    return told


def _session_id(values: Mapping[str, Any]) -> int:
    """Tells which files are of one run: sd-scripts draws a number, here it follows from the settings."""
    text = json.dumps({name: str(value) for name, value in values.items()}, sort_keys=True)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


def _network_arguments(config: Config) -> dict[str, str]:
    """What sd-scripts takes as ``network_args``, in its names, and what follows it in ours."""
    lora = config.lora
    given = {
        "rank_dropout": lora.rank_dropout or None,
        "module_dropout": lora.module_dropout or None,
        "loraplus_lr_ratio": config.train.loraplus_lr_ratio if config.train.loraplus_lr_ratio != 1 else None,
        "rank_stabilized": True if lora.rank_stabilized else None,
        "factor": lora.lokr_factor if lora.type == "lokr" else None,
        "target": lora.target,
        "block_ranks": json.dumps(lora.block_ranks) if lora.block_ranks else None,
        "block_lrs": json.dumps(lora.block_lrs) if lora.block_lrs else None,
    }
    return {name: str(value) for name, value in given.items() if value is not None}


def _schedule_of(config: Config, family: Family, processes: int) -> dict[str, Any]:
    train, lora = config.train, config.lora
    text_rate = train.learning_rate if train.text_encoder_learning_rate is None else train.text_encoder_learning_rate
    optimizer = train.optimizer_class or train.optimizer
    arguments = ",".join(f"{name}={value}" for name, value in train.optimizer_args.items())
    return {
        "ss_learning_rate": train.learning_rate,
        "ss_unet_lr": train.learning_rate if lora.train != "text_encoder" else None,
        "ss_text_encoder_lr": text_rate if lora.train != "unet" else None,
        "ss_optimizer": f"{optimizer}({arguments})" if arguments else optimizer,
        "ss_lr_scheduler": train.lr_scheduler,
        "ss_lr_warmup_steps": train.lr_warmup_steps,
        "ss_lr_decay_steps": train.lr_decay_steps,
        "ss_lr_min_ratio": train.lr_min_ratio,
        "ss_lr_num_cycles": train.lr_num_cycles,
        "ss_lr_power": train.lr_power,
        "ss_batch_size_per_device": train.batch_size,
        "ss_total_batch_size": train.batch_size * processes * train.gradient_accumulation_steps,
        "ss_gradient_accumulation_steps": train.gradient_accumulation_steps,
        "ss_gradient_checkpointing": train.gradient_checkpointing != "off",
        "ss_mixed_precision": _PRECISIONS[next(family.denoiser.parameters()).dtype],
        "ss_full_fp16": train.lora_precision == "fp16",
        "ss_full_bf16": train.lora_precision == "bf16",
        "ss_fp8_base": config.model.quantize == "fp8",
        "ss_fp8_base_unet": config.model.quantize == "fp8",
        "ss_base_quantization": config.model.quantize,
        "ss_lowram": False,
        "ss_max_grad_norm": train.max_grad_norm,
        "ss_scale_weight_norms": lora.max_norm,
        "ss_network_dropout": lora.dropout or None,
        "ss_ema_decay": train.ema,
        "ss_seed": train.seed,
        "ss_clip_skip": train.clip_skip if train.clip_skip > 1 else None,
        "ss_prior_loss_weight": train.prior_loss_weight,
    }


def _captions_and_pictures(dataset: DatasetSettings) -> dict[str, Any]:
    """Of settings that folders may have of their own: true where one of them has it, numbers the general ones."""
    captions, buckets, cache = dataset.captions, dataset.buckets, dataset.cache
    folders = range(len(dataset.sources))
    augments = [dataset.augment_of(number) for number in folders]
    return {
        "ss_max_token_length": captions.max_token_length,
        "ss_weighted_captions": captions.weighted,
        "ss_shuffle_caption": any(dataset.captions_of(number).shuffle for number in folders),
        "ss_keep_tokens": captions.keep_tokens,
        "ss_caption_dropout_rate": captions.dropout,
        "ss_caption_dropout_every_n_epochs": captions.dropout_every_n_epochs,
        "ss_caption_tag_dropout_rate": captions.tag_dropout,
        "ss_token_warmup_step": captions.token_warmup_step,
        "ss_token_warmup_min": captions.token_warmup_min,
        "ss_flip_aug": any(each.flip for each in augments),
        "ss_color_aug": any(each.color for each in augments),
        "ss_random_crop": any(each.random_crop for each in augments),
        "ss_face_crop_aug_range": None,
        "ss_cache_latents": cache.latents,
        "ss_enable_bucket": buckets.enabled,
        "ss_bucket_no_upscale": buckets.enabled and not buckets.upscale,
        "ss_min_bucket_reso": buckets.min if buckets.enabled else None,
        "ss_max_bucket_reso": buckets.max if buckets.enabled else None,
        "ss_bucket_reso_steps": buckets.step if buckets.enabled else None,
        "ss_resize_interpolation": None,
    }


def _loss_of(config: Config, family: Family) -> dict[str, Any]:
    loss = config.loss
    huber = loss.type in ("huber", "smooth_l1")
    return {
        "ss_loss_type": loss.type,
        "ss_huber_c": loss.huber_c if huber else None,
        "ss_huber_schedule": loss.huber_schedule if huber else None,
        "ss_huber_scale": 1.0 if huber else None,
        "ss_min_snr_gamma": loss.min_snr_gamma,
        "ss_debiased_estimation": loss.debiased_estimation,
        "ss_scale_v_pred_loss_like_noise_pred": loss.scale_v_pred_loss_like_noise_pred,
        "ss_noise_offset": loss.noise_offset or None,
        "ss_noise_offset_random_strength": loss.noise_offset_random_strength,
        "ss_adaptive_noise_scale": loss.adaptive_noise_scale or None,
        "ss_multires_noise_iterations": loss.multires_noise.iterations if loss.multires_noise else None,
        "ss_multires_noise_discount": loss.multires_noise.discount if loss.multires_noise else None,
        "ss_ip_noise_gamma": loss.input_perturbation or None,
        "ss_ip_noise_gamma_random_strength": False,
        "ss_zero_terminal_snr": bool(family.alphas_cumprod[-1] == 0),
        "ss_timestep_sampling": loss.timestep_sampling,
        "ss_min_timestep": loss.min_timestep,
        "ss_max_timestep": loss.max_timestep,
        "ss_masked_loss": loss.masked,
        "ss_unmasked_weight": loss.unmasked_weight if loss.masked else None,
        "ss_preserve_weight": loss.preserve.weight if loss.preserve else None,
    }


def _validation_of(config: Config) -> dict[str, Any]:
    validation = config.validation
    measured = validation.has_pictures
    return {
        "ss_validation_split": validation.split,
        "ss_validation_seed": config.train.seed if measured else None,
        "ss_validate_every_n_steps": validation.every_steps if measured and not validation.every_epochs else None,
        "ss_validate_every_n_epochs": validation.every_epochs if measured else None,
        "ss_max_validation_steps": None,
    }


def _modelspec(config: Config, family: Family, progress: Progress) -> dict[str, str]:
    width, height = resolutions(config.dataset)[0]
    output, loss = config.output, config.loss
    given = {
        "date": _date(progress.now) if output.dates else None,
        "description": output.description,
        "tags": output.tags,
        "trigger_phrase": output.trigger,
        "author": output.author,
        "license": output.license,
        "encoder_layer": str(config.train.clip_skip) if config.train.clip_skip > 1 else None,
        "timestep_range": f"{loss.min_timestep},{loss.max_timestep}"
        if (loss.min_timestep, loss.max_timestep) != (0, 1000)
        else None,
    }
    values = {
        "sai_model_spec": "1.0.1",
        "architecture": f"{family.architecture}/lora",
        "implementation": "diffusers",
        "title": output.title or config.name,
        "resolution": f"{width}x{height}",
        "prediction_type": {"v_prediction": "v"}.get(family.prediction_type, family.prediction_type),
        **{name: value for name, value in given.items() if value},
    }
    return {f"modelspec.{name}": value for name, value in values.items()}


def _date(seconds: float) -> str:
    """ISO 8601 in UTC: the time zone of a person is nobody's business."""
    return datetime.fromtimestamp(int(seconds), timezone.utc).isoformat()

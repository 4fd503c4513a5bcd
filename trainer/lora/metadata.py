"""What a trained LoRA file says about itself. Nothing of it depends on when or where it was trained."""

from __future__ import annotations

from collections.abc import Mapping

from trainer.config import Config
from trainer.data.buckets import resolutions
from trainer.families.base import Family
from trainer.lora.file import network_metadata
from trainer.lora.layers import Layer


def training_metadata(
    config: Config, family: Family, layers: Mapping[str, Layer], *, step: int, epoch: int, pictures: int
) -> dict[str, str]:
    """``ss_*`` keys as kohya's tools write them and ``modelspec.*`` of sai_model_spec 1.0.1.

    Folder and file names stay out: a LoRA is often shared by people who do not want to share those.
    """
    train, loss = config.train, config.loss
    text_rate = train.learning_rate if train.text_encoder_learning_rate is None else train.text_encoder_learning_rate
    values: dict[str, object] = {
        "ss_output_name": config.name,
        "ss_resolution": str(resolutions(config.dataset)[0]),
        "ss_num_train_images": pictures,
        "ss_steps": step,
        "ss_epoch": epoch,
        "ss_learning_rate": train.learning_rate,
        "ss_unet_lr": train.learning_rate if config.lora.train != "text_encoder" else None,
        "ss_text_encoder_lr": text_rate if config.lora.train != "unet" else None,
        "ss_optimizer": train.optimizer_class or train.optimizer,
        "ss_lr_scheduler": train.lr_scheduler,
        "ss_lr_warmup_steps": train.lr_warmup_steps,
        "ss_total_batch_size": train.batch_size,
        "ss_gradient_accumulation_steps": train.gradient_accumulation_steps,
        "ss_gradient_checkpointing": train.gradient_checkpointing,
        "ss_mixed_precision": train.mixed_precision,
        "ss_max_grad_norm": train.max_grad_norm,
        "ss_seed": train.seed,
        "ss_clip_skip": train.clip_skip if train.clip_skip > 1 else None,
        "ss_max_token_length": config.dataset.captions.max_token_length,
        "ss_network_dropout": config.lora.dropout or None,
        "ss_prior_loss_weight": train.prior_loss_weight,
        "ss_loss_type": loss.type,
        "ss_huber_c": loss.huber_c if loss.type in ("huber", "smooth_l1") else None,
        "ss_huber_schedule": loss.huber_schedule if loss.type in ("huber", "smooth_l1") else None,
        "ss_min_snr_gamma": loss.min_snr_gamma,
        "ss_noise_offset": loss.noise_offset or None,
        "ss_noise_offset_random_strength": loss.noise_offset_random_strength,
        "ss_adaptive_noise_scale": loss.adaptive_noise_scale or None,
        "ss_multires_noise_iterations": loss.multires_noise.iterations if loss.multires_noise else None,
        "ss_multires_noise_discount": loss.multires_noise.discount if loss.multires_noise else None,
        "ss_ip_noise_gamma": loss.input_perturbation or None,
        "ss_zero_terminal_snr": bool(family.alphas_cumprod[-1] == 0),
        "ss_debiased_estimation": loss.debiased_estimation,
        "ss_scale_v_pred_loss_like_noise_pred": loss.scale_v_pred_loss_like_noise_pred,
    }
    described = {name: str(value) for name, value in values.items()}
    described |= network_metadata(layers, family.base_model_version)
    return described | _modelspec(config, family)


def _modelspec(config: Config, family: Family) -> dict[str, str]:
    width, height = resolutions(config.dataset)[0]
    output, loss = config.output, config.loss
    given = {
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

"""ai-toolkit's jobs, as YAML or as the JSON that its page keeps: ``job``, ``config.name``, ``config.process``.

Sources: ai-toolkit ``toolkit/config_modules.py`` (names and defaults), ``toolkit/config.py`` (``[name]``),
``jobs/process/BaseSDTrainProcess.py`` (what becomes of them), ``config/examples``.
"""

from __future__ import annotations

import re
from typing import Any

from trainer.errors import UserError
from trainer.imports import values
from trainer.imports.ait_datasets import put_datasets, put_samples
from trainer.imports.ait_optimizer import put_optimizer_and_rate
from trainer.imports.base import ConfigKind, Document, Imported
from trainer.imports.draft import Draft, Rule, flattened, numbered

_LABEL = "ai-toolkit"
_PROCESS = "config.process.0."
_DEFAULTS: dict[str, Any] = {
    "network.type": "lora",
    "network.linear": 4,
    "network.alpha": 1.0,
    "network.lokr_full_rank": True,
    "network.lokr_factor": -1,
    "train.steps": 1000,
    "train.lr": 1e-6,
    "train.batch_size": 1,
    "train.optimizer": "adamw",
    "train.lr_scheduler": "constant",
    "train.dtype": "fp32",
    "train.train_unet": True,
    "train.train_text_encoder": False,
    "train.gradient_checkpointing": True,
    "train.max_grad_norm": 1.0,
    "train.loss_type": "mse",
    "train.content_or_style": "balanced",
    "train.min_denoising_steps": 0,
    "train.max_denoising_steps": 999,
    "train.reg_weight": 1.0,
    "train.skip_first_sample": False,
    "train.diff_output_preservation_multiplier": 1.0,
    "train.ema_config.ema_decay": 0.999,
    "save.save_every": 1000,
    "save.dtype": "float16",
    "save.max_step_saves_to_keep": 5,
    "sample.sample_every": 100,
    "sample.width": 512,
    "sample.height": 512,
    "sample.guidance_scale": 7,
    "sample.sample_steps": 20,
    "sample.sampler": "ddpm",
}
_FAMILIES = {"sd1": "sd1", "sd2": "sd2", "sdxl": "sdxl", "is_v2": "sd2", "is_xl": "sdxl"}
_PRECISIONS = {
    "bf16": "bf16", "bfloat16": "bf16", "fp16": "fp16", "float16": "fp16", "fp32": "no", "float32": "no", "float": "no",
}  # fmt: skip
_FILE_PRECISIONS = {name: "float" if ours == "no" else ours for name, ours in _PRECISIONS.items()}
_LOSSES = {"mse": "l2", "mae": "l1", "l2": "l2", "l1": "l1"}
_HUBER_C = 0.01
"""Where its ``pseudo_huber`` turns from square to linear (``SDTrainer.py``)."""
_RULES = (
    Rule("model.name_or_path", "model.base", values.text),
    Rule("model.vae_path", "model.vae", values.text),
    Rule("train.batch_size", "train.batch_size", values.whole),
    Rule("train.gradient_checkpointing", "train.gradient_checkpointing", values.flag),
    Rule("train.dtype", "train.mixed_precision", lambda given: _PRECISIONS.get(values.text(given))),
    Rule("train.noise_offset", "loss.noise_offset", values.number),
    Rule("train.reg_weight", "train.prior_loss_weight", values.number),
    Rule("train.prompt_dropout_prob", "dataset.captions.dropout", values.number),
    Rule("network.dropout", "lora.dropout", values.number),
    Rule("network.pretrained_lora_path", "lora.init_from", values.text),
    Rule("save.max_step_saves_to_keep", "output.keep_last", values.whole),
    Rule(
        "save.dtype",
        "output.precision",
        lambda given: _FILE_PRECISIONS.get(values.text(given)),
    ),
)
_UNUSED = (
    "train.xformers", "train.sdp", "train.attention_backend", "train.unload_text_encoder",
    "train.cache_text_embeddings", "train.noise_scheduler", "train.num_train_timesteps", "train.train_refiner",
    "train.linear_timesteps", "train.linear_timesteps2", "train.bypass_guidance_embedding",
    "train.show_turbo_outputs", "train.start_step",
    "train.switch_boundary_every", "train.orig_batch_size", "model.low_vram", "model.dtype",
    "model.vae_dtype", "model.te_dtype", "model.vae_device", "model.te_device", "model.quantize_te",
    "model.qtype_te", "model.qtype", "model.quantize_kwargs", "model.auto_memory", "model.split_model_over_gpus",
    "model.compile", "model.model_kwargs", "model.use_flux_cfg", "model.attn_masking", "network.transformer_only",
    "network.old_lokr_format", "network.split_multistage_loras", "network.lokr_factor", "network.lokr_full_rank",
    "save.save_format", "type", "train.diff_output_preservation_multiplier", "train.diff_output_preservation_class",
    "train.blank_prompt_preservation_multiplier", "training_folder", "device", "performance_log_every",
    "sqlite_db_path", "log_dir", "is_ui", "job", "config.name", "config.training_folder", "config.log_dir",
    "config.device", "model.extras_name_or_path",
)  # fmt: skip
_UNUSED_SECTIONS = (
    "meta", "logging.log_every", "logging.verbose", "logging.use_ui_logger", "logging.project_name",
    "logging.run_name", "model.layer_offloading", "model.block_compile", "model.compile_", "sample.",
    "model.model_kwargs", "model.quantize_kwargs",
    "network.layer_offloading", "train.ema_config.", "model.is_", "train.lora", "network.network_kwargs",
)  # fmt: skip
_LOST = {
    "train.weight_jitter": "jittered the weights",
    "train.short_and_long_captions": "trained with two captions at once",
    "train.inverted_mask_prior": "kept what is outside the mask as the model has it; see loss.unmasked_weight",
    "train.blank_prompt_preservation": "kept what the model draws without a prompt; see loss.preserve",
    "train.do_cfg": "trained with guidance",
    "train.loss_target": "had another target than the noise",
    "train.merge_network_on_save": "merged the LoRA into the model; do so on the Merge tab",
    "train.noise_multiplier": "made the noise stronger or weaker",
    "train.random_noise_shift": "shifted the noise by chance; loss.noise_offset is near it",
    "train.random_noise_multiplier": "made the noise stronger or weaker by chance",
    "train.img_multiplier": "made the picture stronger or weaker",
    "train.latent_multiplier": "made the picture stronger or weaker",
    "train.negative_prompt": "trained with a negative prompt",
    "train.dynamic_noise_offset": "shifted the noise by the picture's mean; see loss.adaptive_noise_scale",
    "train.match_noise_norm": "made predictions as strong as the noise",
    "train.free_u": "changed the UNet's skip connections",
    "train.standardize_latents": "changed the latents",
    "train.learnable_snr_gos": "learned the weights of noise levels",
    "train.adaptive_scaling_factor": "changed the latents",
    "train.do_prior_divergence": "pushed away from the model",
    "model.refiner_name_or_path": "trained SDXL's refiner, too",
    "model.unet_path": "took the UNet from another file; merge it into a model first",
    "model.te_name_or_path": "took the text encoder from elsewhere",
    "model.assistant_lora_path": "used a second LoRA while training; see lora.merge_before_training",
    "model.inference_lora_path": "used a second LoRA for previews",
    "save.push_to_hub": "uploaded to the Hub; set output.hub_repo, or share the finished run",
    "save.hf_repo_id": "uploaded to the Hub; set output.hub_repo, or share the finished run",
    "save.hf_private": "uploaded to the Hub; set output.hub_repo, or share the finished run",
    "network.lorm": "extracted instead of trained; see Merge, Extract",
    "network.all_layers": "trained norm layers; LoRAs here have none",
    "train.validation_config": "validated on pictures of its own; put them into a folder and set validation.path",
}


def _recognises(document: Document) -> bool:
    config = document.mapping.get("config")
    return isinstance(config, dict) and "process" in config


def _read(document: Document) -> Imported:
    """Raises UserError for a job that trains something else: one without a network, or a slider."""
    given, as_written = _first_process(document)
    if not any(key.startswith("network.") for key in given):
        message = "This job of ai-toolkit has no network: it trains a whole model or something else than a LoRA."
        raise UserError("import.no_lora", message, "Choose a job with `network: {type: lora}`.")
    if any(key.startswith("slider.") for key in given):
        message = "This job of ai-toolkit trains a slider out of prompts, without pictures."
        raise UserError("import.no_lora", message, "Choose a job with `datasets`.")
    draft = Draft(given, _DEFAULTS, as_written)
    names = numbered(draft, "datasets")
    name = draft.text("config.name")
    if name:
        draft.put("name", values.run_name(name), "config.name")
    draft.apply(_RULES)
    batches = _put_accumulation(draft)
    _put_length(draft, batches)
    _put_model(draft)
    _put_network(draft)
    put_optimizer_and_rate(draft)
    _put_clipping(draft)
    _put_loss(draft)
    trigger = _put_trigger(draft, names)
    _put_preservation(draft, trigger)
    put_datasets(draft, names, trigger)
    put_samples(draft, trigger, batches)
    _tell_the_rest(draft)
    return draft.finished(_LABEL)


def _first_process(document: Document) -> tuple[dict[str, Any], dict[str, tuple[str, Any]]]:
    """Its keys without ``config.process.0.``, and as they are written; ``[name]`` is filled in."""
    name = values.text(document.mapping["config"].get("name") or "")
    given: dict[str, Any] = {}
    as_written: dict[str, tuple[str, Any]] = {}
    for key, value in flattened(document.mapping).items():
        short = key.removeprefix(_PROCESS)
        given[short] = value.replace("[name]", name) if isinstance(value, str) else value
        as_written[short] = (short, value)
    return given, as_written


def _put_accumulation(draft: Draft) -> int:
    """Two keys of which only one may be more than 1; how many batches a step of the optimizer has by the older one.

    With that ``steps`` counts batches (``BaseSDTrainProcess.py``, ``optimizer_step_at``).
    """
    older, newer = "train.gradient_accumulation_steps", "train.gradient_accumulation"
    counts = {key: draft.whole(key) or 1 for key in (older, newer)}
    if counts[older] < 0:
        draft.lost(older, "added up all batches of an epoch; set train.gradient_accumulation_steps to their number")
    key = max(counts, key=lambda each: counts[each])
    draft.put("train.gradient_accumulation_steps", counts[key], key)
    draft.all_unused((older, newer), "the other key says it")
    return counts[key] if key == older else 1


def _put_length(draft: Draft, batches: int) -> None:
    """Length and saving, in steps of the optimizer."""
    note = f"counted in batches there, {batches} of which are a step" if batches > 1 else ""
    steps, every = draft.whole("train.steps"), draft.whole("save.save_every")
    draft.put("train.max_steps", steps if not steps else -(-steps // batches), "train.steps", note=note)
    draft.put("output.save_every_steps", every if not every else -(-every // batches), "save.save_every", note=note)


def _put_clipping(draft: Draft) -> None:
    if draft.text("train.optimizer") == "adafactor":
        note = "not done with adafactor there, which has a limit of its own"
        draft.put("train.max_grad_norm", 0.0, "train.max_grad_norm", note=note)
    else:
        draft.put("train.max_grad_norm", draft.number("train.max_grad_norm"), "train.max_grad_norm")


def _put_model(draft: Draft) -> None:
    arch = draft.text("model.arch").partition(":")[0]
    flags = [key for key in draft.untold() if key.startswith("model.is_") and draft.flag(key)]
    named = {key.removeprefix("model."): key for key in flags if key != "model.is_v_pred"}
    family = _FAMILIES.get(arch) or next((_FAMILIES[flag] for flag in named if flag in _FAMILIES), None)
    key = "model.arch" if arch else next(iter(named.values()), "model.arch")
    if family:
        draft.put("model.family", family, key)
    elif arch or named:
        draft.lost(key, "such models cannot be trained here; choose a Stable Diffusion 1, 2 or XL model")
    if draft.flag("model.is_v_pred"):
        draft.put("loss.prediction_type", "v_prediction", "model.is_v_pred")
    on = "not done for Stable Diffusion there; model.quantize does so here"
    draft.unused("model.quantize", on if draft.flag("model.quantize") else "off in the file")
    if path := draft.text("model.lora_path"):
        draft.put("lora.merge_before_training", [{"path": path, "ratio": 1.0}], "model.lora_path")


def _put_network(draft: Draft) -> None:
    kind = draft.text("network.type").lower()
    ours = {"lora": "lora", "locon": "lora", "dora": "dora", "lokr": "lokr"}.get(kind)
    note = "" if ours else f"{kind} is not there; a plain LoRA is trained instead"
    draft.put("lora.type", ours or "lora", "network.type", note=note)
    rank_key = "network.rank" if draft.is_given("network.rank") else "network.linear"
    alpha_key = "network.linear_alpha" if draft.is_given("network.linear_alpha") else "network.alpha"
    rank, conv, conv_alpha = draft.whole(rank_key) or 4, draft.whole("network.conv"), draft.number("network.conv_alpha")
    if ours == "lokr" and draft.flag("network.lokr_full_rank"):
        note = "full matrices; rank 1024 gives them wherever they are that small"
        draft.put("lora.rank", 1024, rank_key, "network.lokr_full_rank", note=note)
        draft.put("lora.alpha", 1024.0, alpha_key, note="full matrices have no alpha there")
        conv, conv_alpha = 1024, 1024.0
    else:
        draft.put("lora.rank", rank, rank_key)
        _put_alpha(draft, alpha_key, rank)
    if conv:
        draft.put("lora.conv_rank", conv, "network.conv")
        draft.put("lora.conv_alpha", float(conv) if conv_alpha is None else conv_alpha, "network.conv_alpha")
    if ours == "lokr":
        draft.apply((Rule("network.lokr_factor", "lora.lokr_factor", values.whole),))
    unused = (
        "network.linear",
        "network.rank",
        "network.alpha",
        "network.linear_alpha",
        "network.conv",
        "network.conv_alpha",
    )
    draft.all_unused(unused, "another key says it, or it is empty")
    _put_layers(draft)
    unet, text = draft.flag("train.train_unet"), draft.flag("train.train_text_encoder")
    trained = "both" if unet and text else "text_encoder" if text else "unet"
    draft.put("lora.train", trained, "train.train_unet", "train.train_text_encoder")


def _put_alpha(draft: Draft, key: str, rank: int) -> None:
    """Alpha 0, or written as nothing, is the rank (``toolkit/lora_special.py``)."""
    written_as_nothing = "network.linear_alpha" in draft.untold() and not draft.is_given("network.linear_alpha")
    alpha = 0.0 if written_as_nothing else draft.number(key)
    if alpha:
        draft.put("lora.alpha", alpha, key)
    else:
        draft.put("lora.alpha", float(rank), "network.linear_alpha", key, note="0 or nothing stands for the rank there")


def _put_layers(draft: Draft) -> None:
    note = "every linear layer of the UNet; those of the time embedding, outside its blocks, are not trained here"
    draft.put("lora.target", "full", "network.type", note=note)
    for key, setting in (("ignore_if_contains", "lora.exclude"), ("only_if_contains", "lora.include")):
        name = f"network.network_kwargs.{key}"
        words = draft.value(name)
        if not values.is_blank(words):
            listed = words if isinstance(words, list) else [words]
            patterns = [re.escape(str(word).replace("$$", ".")) for word in listed]
            draft.put(setting, patterns, name, note="part of a layer's name; names may be spelled otherwise here")
    for key in [key for key in draft.untold() if key.startswith("network.network_kwargs.")]:
        draft.lost(key, "an option of the network that is not there")


def _put_loss(draft: Draft) -> None:
    _put_loss_type(draft)
    gamma, other = draft.number("train.min_snr_gamma"), draft.number("train.snr_gamma")
    if other:
        draft.put("loss.min_snr_gamma", other, "train.snr_gamma", note="is not cut off at 1 there, as min-SNR is here")
    elif gamma:
        predicts_v = draft.config.get("loss", {}).get("prediction_type") == "v_prediction"
        note = "weighed as for noise there; here as it should be for v-prediction" if predicts_v else ""
        draft.put("loss.min_snr_gamma", gamma, "train.min_snr_gamma", note=note)
    draft.all_unused(("train.min_snr_gamma", "train.snr_gamma"), "off in the file")
    if draft.text("train.content_or_style") not in ("", "balanced"):
        draft.lost("train.content_or_style", "drew more of one end of the noise levels; see loss.timestep_sampling")
    draft.unused("train.content_or_style", "all noise levels alike")
    if draft.text("train.timestep_type") in ("one_step", "two_step", "four_step", "eight_step", "next_sample"):
        draft.lost("train.timestep_type", "trained a few noise levels only; see loss.min_timestep")
    draft.unused("train.timestep_type", "for flow models; these draw noise levels alike")
    first, last = draft.whole("train.min_denoising_steps") or 0, draft.whole("train.max_denoising_steps") or 999
    draft.put("loss.max_timestep", 1000 - first, "train.min_denoising_steps")  # counted from all noise there
    draft.put("loss.min_timestep", max(0, 999 - last), "train.max_denoising_steps")
    if draft.flag("train.ema_config.use_ema"):
        draft.put(
            "train.ema",
            draft.number("train.ema_config.ema_decay"),
            "train.ema_config.ema_decay",
            "train.ema_config.use_ema",
        )


def _put_loss_type(draft: Draft) -> None:
    loss = draft.text("train.loss_type")
    if loss == "pseudo_huber":
        draft.put("loss.type", "smooth_l1", "train.loss_type", note="of the same form, and twice as large")
        draft.put("loss.huber_c", _HUBER_C, "train.loss_type", note="fixed there")
        return
    note = "" if loss in _LOSSES else f"{loss} is not there; l2 is minimised"
    draft.put("loss.type", _LOSSES.get(loss, "l2"), "train.loss_type", note=note)


def _put_trigger(draft: Draft, names: list[str]) -> str:
    """The word is put in front of captions that do not have it there, and in place of ``[trigger]``."""
    keys = [key for key in ("trigger_word", *(f"{name}trigger_word" for name in names)) if draft.is_given(key)]
    draft.unused("trigger_word", "empty in the file")
    if not keys:
        return ""
    word = draft.text(keys[0])
    draft.put("output.trigger", word, keys[0])
    note = "was put in front of captions without it, and in place of [trigger]; check your captions in the Dataset tab"
    draft.put("dataset.captions.prefix", word, keys[0], note=note)
    for key in keys[1:]:
        if draft.text(key) != word:
            draft.lost(key, "one trigger word is written into the file; put the others into the captions")
        draft.unused(key, "the same word")
    return word


def _put_preservation(draft: Draft, trigger: str) -> None:
    if draft.flag("train.diff_output_preservation"):
        word = draft.text("train.diff_output_preservation_class")
        keys = [f"train.diff_output_preservation{end}" for end in ("", "_class", "_multiplier")]
        if word and trigger:
            preserve = {"class_word": word, "weight": draft.number(keys[2])}
            draft.put("loss.preserve", preserve, *keys)
        else:
            draft.lost(keys[0], "needs a class and a trigger word; set output.trigger and loss.preserve")
    draft.unused("train.diff_output_preservation", "off in the file")


def _tell_the_rest(draft: Draft) -> None:
    if draft.flag("logging.use_wandb"):
        draft.put("trackers", ["wandb"], "logging.use_wandb")
        draft.apply((Rule("logging.project_name", "tracking.project", values.text),))
    draft.all_lost(_LOST)
    draft.all_unused(_UNUSED, "how that program used its machine and disk, or for other models")
    rest = draft.untold()
    for key in [key for key in rest if key.startswith("config.process.")]:
        draft.lost(key, "of a second process of the job; only the first is read")
    draft.all_unused([key for key in rest if key.startswith(_UNUSED_SECTIONS)], "not used for this training")


KIND = ConfigKind(label=_LABEL, recognises=_recognises, read=_read)

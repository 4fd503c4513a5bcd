"""OneTrainer's configs and presets (JSON), of every version of its format up to 11.

Source: OneTrainer ``modules/util/config/TrainConfig.py``: names, defaults and what its migrations renamed. A preset
says only what differs from the defaults.
"""

from __future__ import annotations

import re
from typing import Any

from trainer.errors import UserError
from trainer.imports import values
from trainer.imports.base import ConfigKind, Document, Imported
from trainer.imports.draft import Draft, Rule, flattened, numbered
from trainer.imports.ot_concepts import companion_list, put_concepts, put_samples
from trainer.imports.ot_loss import put_loss
from trainer.imports.ot_optimizer import put_training
from trainer.imports.ot_rhythm import put_rhythm
from trainer.imports.sd_network import ENDS_NOTE
from trainer.imports.sizes import put_sizes

_LABEL = "OneTrainer"
_DEFAULTS: dict[str, Any] = {
    "base_model_name": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "model_type": "STABLE_DIFFUSION_15",
    "learning_rate": 3e-6,
    "learning_rate_scheduler": "CONSTANT",
    "learning_rate_warmup_steps": 200,
    "learning_rate_cycles": 1.0,
    "optimizer.optimizer": "ADAMW",
    "epochs": 100,
    "batch_size": 1,
    "gradient_accumulation_steps": 1,
    "resolution": "512",
    "train_dtype": "FLOAT_16",
    "output_dtype": "FLOAT_32",
    "clip_grad_norm": 1.0,
    "lora_rank": 16,
    "lora_alpha": 1.0,
    "lokr_dim": 16,
    "peft_type": "LORA",
    "layer_filter_preset": "full",
    "unet.train": True,
    "unet.gradient_checkpointing": True,
    "text_encoder.train": True,
    "text_encoder_2.train": True,
    "ema": "OFF",
    "ema_decay": 0.999,
    "ema_update_step_interval": 5,
    "loss_weight_fn": "CONSTANT",
    "loss_weight_strength": 5.0,
    "mse_strength": 1.0,
    "huber_delta": 1.0,
    "timestep_distribution": "UNIFORM",
    "min_noising_strength": 0.0,
    "max_noising_strength": 1.0,
    "aspect_ratio_bucketing": True,
    "latent_caching": True,
    "unmasked_weight": 0.1,
    "save_every_unit": "NEVER",
    "validate_after": 1,
    "validate_after_unit": "EPOCH",
    "sample_after": 10,
    "sample_after_unit": "MINUTE",
    "concept_file_name": "training_concepts/concepts.json",
    "sample_definition_file_name": "training_samples/samples.json",
}
_RENAMED = {
    "train_unet": "unet.train",
    "unet_learning_rate": "unet.learning_rate",
    "unet_weight_dtype": "unet.weight_dtype",
    "train_text_encoder": "text_encoder.train",
    "train_text_encoder_epochs": "text_encoder.stop_training_after",
    "text_encoder_learning_rate": "text_encoder.learning_rate",
    "text_encoder_weight_dtype": "text_encoder.weight_dtype",
    "train_text_encoder_2": "text_encoder_2.train",
    "text_encoder_2_learning_rate": "text_encoder_2.learning_rate",
    "vae_model_name": "vae.model_name",
    "optimizer": "optimizer.optimizer",
    "lora_layers": "layer_filter",
    "lora_layer_preset": "layer_filter_preset",
    "lora_layers_regex": "layer_filter_regex",
    "save_after": "save_every",
    "save_after_unit": "save_every_unit",
    "weight_dtype": "unet.weight_dtype",
}
"""Names of older versions of the format."""
_FAMILIES = {
    "STABLE_DIFFUSION_15": "sd1",
    "STABLE_DIFFUSION_20": "sd2",
    "STABLE_DIFFUSION_20_BASE": "sd2",
    "STABLE_DIFFUSION_21": "sd2",
    "STABLE_DIFFUSION_21_BASE": "sd2",
    "STABLE_DIFFUSION_XL_10_BASE": "sdxl",
}
_PRECISIONS = {"FLOAT_32": "no", "TFLOAT_32": "no", "FLOAT_16": "fp16", "BFLOAT_16": "bf16"}
_FILE_PRECISIONS = {"FLOAT_32": "float", "FLOAT_16": "fp16", "BFLOAT_16": "bf16"}
_LORA_PRECISIONS = {"FLOAT_32": "float32", "FLOAT_16": "fp16", "BFLOAT_16": "bf16"}
_QUANTIZED = {"FLOAT_8": "fp8", "FLOAT_W8A8": "fp8", "INT_8": "int8", "INT_W8A8": "int8", "NFLOAT_4": "nf4"}
_PRESET_WORDS = {"attn-mlp": "attentions", "attn-only": "attn"}
_TARGETS = {"attentions": "attention_ff", "attn": "attention"}
_LOST = {
    "perturbation_noise_weight": "added noise that is learned, too; loss.input_perturbation adds noise that is not",
    "masked_prior_preservation_weight": "kept what is outside the mask as the model has it; see loss.unmasked_weight",
    "normalize_masked_area_loss": "counted small masks as much as large ones, which is always so here",
    "unmasked_probability": "left masks away by chance; see loss.unmasked_weight",
    "generalized_offset_noise": "made the noise offset depend on the noise level",
    "force_circular_padding": "made pictures that can be tiled",
    "custom_conditioning_image": "gave the model a second picture",
    "loss_scaler": "multiplied the loss, which most optimizers do not notice",
    "preserve_embedding_norm": "embeddings are not trained here",
    "save_skip_first": "left out the first saves; see output.save_at",
    "sample_skip_first": "left out the first previews",
    "custom_learning_rate_scheduler": "a class of its own for the learning rate is not there",
    "lokr_use_tucker": "an option of LoKr that is not there",
    "lokr_decompose_both": "an option of LoKr that is not there",
    "lokr_weight_decompose": "DoRA on LoKr is not there",
    "text_encoder_2_layer_skip": "one clip skip holds for both text encoders here",
    "text_encoder_2.dropout_probability": "left captions out for this text encoder alone; here for both at once",
}
_NOT_OURS = (
    "debug", "workspace_dir", "cache_dir", "huggingface_cache_dir", "offline_mode",
    "tensorboard", "continue_last_backup", "prevent_overwrites", "include_train_config", "multi_gpu",
    "device_indexes", "gradient_reduce", "fused_gradient", "async_", "enable_async",
    "enable_activation", "layer_offload_fraction", "clear_cache", "dataloader_threads", "train_device",
    "temp_device", "fallback_train_dtype", "enable_autocast_cache", "only_cache", "frames",
    "attention_mechanism", "compile", "cloud", "backup", "rolling_backup",
    "samples_to_tensorboard", "sample_image", "sample_video", "sample_audio", "non_ema_sampling",
    "save_filename_prefix", "output_model_format", "quantization", "__version", "bundle_additional",
    "lora_decompose_norm", "lora_decompose_output", "lokr_vec", "lokr_dora_on", "timestep_shift",
    "dynamic_timestep", "text_encoder_sequence", "text_encoder_2_sequence", "vb_loss_strength",
)  # fmt: skip
"""Beginnings of keys: how that program used its machine and its disk, and what other families have."""
_OTHER_PARTS = (
    "prior.", "transformer.", "unconditional_transformer.", "text_encoder_3", "text_encoder_4", "effnet_encoder.",
    "decoder.", "decoder_text_encoder.", "decoder_vqgan.", "oft_", "embedding", "additional_embeddings",
    "prior_", "effnet_encoder_", "decoder_", "token_count", "initial_embedding_text",
)  # fmt: skip
_RULES = (
    Rule("base_model_name", "model.base", values.text),
    Rule("vae.model_name", "model.vae", values.text),
    Rule("batch_size", "train.batch_size", values.whole),
    Rule("gradient_accumulation_steps", "train.gradient_accumulation_steps", values.whole),
    Rule("train_dtype", "train.mixed_precision", _PRECISIONS.get),
    Rule("output_dtype", "output.precision", _FILE_PRECISIONS.get),
    Rule("lora_weight_dtype", "train.lora_precision", _LORA_PRECISIONS.get),
    Rule("output_model_destination", "name", lambda given: values.run_name(values.file_stem(values.text(given)))),
    Rule("lora_model_name", "lora.init_from", values.text),
    Rule("dropout_probability", "lora.dropout", values.number),
    Rule("offset_noise_weight", "loss.noise_offset", values.number),
    Rule("rescale_noise_scheduler_to_zero_terminal_snr", "loss.zero_terminal_snr", values.flag),
    Rule("latent_caching", "dataset.cache.latents", values.flag),
    Rule("aspect_ratio_bucketing", "dataset.buckets.enabled", values.flag),
)


def _recognises(document: Document) -> bool:
    data = document.mapping
    return document.syntax == "json" and bool({"training_method", "base_model_name", "lora_rank"} & set(data))


def _read(document: Document) -> Imported:
    """Raises UserError for anything but a LoRA."""
    given, as_written = _modern(document)
    method = values.text(given.get("training_method") or "LORA")
    if method != "LORA":
        message = f"training_method: {method} trains a whole model or an embedding, and not a LoRA."
        raise UserError("import.no_lora", message, "Choose a config whose training method is LoRA.")
    draft = Draft(given, _DEFAULTS, as_written)
    draft.unused("training_method", "a LoRA, as everything here")
    draft.apply(_RULES)
    _put_model(draft)
    _put_lora(draft)
    put_training(draft)
    _put_pictures(draft)
    put_loss(draft)
    put_concepts(draft, document.companion)
    put_samples(draft)
    put_rhythm(draft)
    _tell_the_rest(draft)
    return draft.finished(_LABEL)


def _modern(document: Document) -> tuple[dict[str, Any], dict[str, tuple[str, Any]]]:
    """The file's keys by their newest names, and as they are written; concepts and samples of other files too."""
    data = dict(document.mapping)
    if isinstance(data.get("optimizer"), str):  # the first version kept its options beside it
        options = {
            key: value for key, value in data.items() if key.startswith("optimizer_") and key != "optimizer_defaults"
        }
        as_options = {key: f"optimizer.{key.removeprefix('optimizer_')}" for key in options}
    else:
        as_options = {}
    for key, name in (("concepts", "concept_file_name"), ("samples", "sample_definition_file_name")):
        if not data.get(key):
            data[key] = companion_list(document.companion, values.text(data.get(name) or _DEFAULTS[name]))
    given: dict[str, Any] = {}
    as_written: dict[str, tuple[str, Any]] = {}
    for key, value in flattened(data).items():
        if key in ("concepts", "samples") and not value:
            continue
        name = as_options.get(key) or _RENAMED.get(key, key)
        given[name if name not in given else key] = value
        as_written[name if name not in as_written else key] = (key, value)
    return given, as_written


def _put_model(draft: Draft) -> None:
    model = draft.text("model_type")
    if model in _FAMILIES:
        draft.put("model.family", _FAMILIES[model], "model_type")
    else:
        draft.lost("model_type", "such models cannot be trained here; choose a Stable Diffusion 1, 2 or XL model")
    for key, prediction in (("force_v_prediction", "v_prediction"), ("force_epsilon_prediction", "epsilon")):
        if draft.flag(key):
            draft.put("loss.prediction_type", prediction, key)
        draft.unused(key, "off in the file")
    if draft.flag("rescale_noise_scheduler_to_zero_terminal_snr"):
        draft.put("loss.prediction_type", "v_prediction", "rescale_noise_scheduler_to_zero_terminal_snr")
    dtype = draft.text("unet.weight_dtype")
    if dtype in _QUANTIZED:
        draft.put("model.quantize", _QUANTIZED[dtype], "unet.weight_dtype")
    draft.unused("unet.weight_dtype", "the model is kept in the precision it is trained in")


def _put_lora(draft: Draft) -> None:
    kind = draft.text("peft_type")
    is_dora = draft.flag("lora_decompose") and kind == "LORA"
    ours = {"LORA": "dora" if is_dora else "lora", "LOHA": "loha", "LOKR": "lokr"}.get(kind)
    note = "" if ours else f"{kind} is not there; a plain LoRA is trained instead"
    draft.put("lora.type", ours or "lora", "peft_type", *(["lora_decompose"] if is_dora else []), note=note)
    rank_key = "lokr_dim" if kind == "LOKR" else "lora_rank"
    rank = draft.whole(rank_key) or 16
    if kind == "LOKR" and draft.flag("lokr_full_matrix"):
        draft.put("lora.rank", 1024, rank_key, "lokr_full_matrix", note="full matrices, wherever they are that small")
        draft.put("lora.alpha", 1024.0, "lora_alpha", note="full matrices have no alpha there")
    else:
        draft.put("lora.rank", rank, rank_key)
        draft.put("lora.alpha", draft.number("lora_alpha"), "lora_alpha")
    if kind == "LOKR":
        draft.apply((Rule("lokr_decompose_factor", "lora.lokr_factor", values.whole),))
    draft.all_unused(
        ("lora_decompose", "lora_rank", "lokr_dim", "lokr_decompose_factor", "lokr_full_matrix"), f"not for {kind}"
    )
    _put_parts(draft)
    _put_layers(draft)


def _put_layers(draft: Draft) -> None:
    """Parts of the UNet's layer names; without any, every linear layer and convolution at the same rank.

    The text encoder is always trained as a whole, which the target ``attention`` would not do.
    A preset is what its page fills ``layer_filter`` with; in a file without that it stands for itself.
    """
    preset = draft.text("layer_filter_preset")
    key = "layer_filter" if draft.is_given("layer_filter") else "layer_filter_preset"
    words = [word.strip() for word in (draft.text("layer_filter") or _PRESET_WORDS.get(preset, "")).split(",")]
    words = [word for word in words if word]
    target = _TARGETS.get(words[0]) if len(words) == 1 else None
    if target and not (target == "attention" and draft.config["lora"]["train"] != "unet"):
        draft.put("lora.target", target, key)
    else:
        draft.put("lora.target", "full", key, note="" if words else ENDS_NOTE)
        draft.config["lora"] |= {"conv_rank": draft.config["lora"]["rank"], "conv_alpha": draft.config["lora"]["alpha"]}
        patterns = words if draft.flag("layer_filter_regex") else [re.escape(word) for word in words]
        if patterns:
            draft.put("lora.include", [*patterns, "^text_encoder"], key, "layer_filter_regex")
    draft.all_unused(("layer_filter", "layer_filter_regex", "layer_filter_preset"), "said by the layers' names")


def _put_parts(draft: Draft) -> None:
    unet, text = draft.flag("unet.train"), draft.flag("text_encoder.train")
    is_sdxl = draft.config.get("model", {}).get("family") == _FAMILIES["STABLE_DIFFUSION_XL_10_BASE"]
    second = draft.flag("text_encoder_2.train") if is_sdxl else text
    keys = ["unet.train", "text_encoder.train", *(["text_encoder_2.train"] if is_sdxl else [])]
    trains_text = text or second
    note = "" if text == second else "one text encoder learned and the other did not; here both do"
    trained = "both" if unet and trains_text else "unet" if unet or not trains_text else "text_encoder"
    draft.put("lora.train", trained, *keys, note=note)
    draft.unused("text_encoder_2.train", "this family has one text encoder")
    for part in ("unet", "text_encoder", "text_encoder_2"):
        unit = draft.text(f"{part}.stop_training_after_unit") or "NEVER"
        if draft.is_given(f"{part}.stop_training_after") and unit != "NEVER":
            draft.lost(f"{part}.stop_training_after", "stopped this part early; here it learns to the end")
        draft.all_unused((f"{part}.stop_training_after", f"{part}.stop_training_after_unit"), "learns to the end")
    old = draft.value("gradient_checkpointing")
    checkpointing = str(old) not in ("OFF", "False") if old is not None else draft.flag("unet.gradient_checkpointing")
    key = "gradient_checkpointing" if old is not None else "unet.gradient_checkpointing"
    draft.put("train.gradient_checkpointing", checkpointing, key)
    _put_caption_dropout(draft, is_sdxl=is_sdxl)
    if "text_encoder_layer_skip" in draft.untold():
        skip = (draft.whole("text_encoder_layer_skip") or 0) + 1
        draft.put("train.clip_skip", skip, "text_encoder_layer_skip")


def _put_caption_dropout(draft: Draft, *, is_sdxl: bool) -> None:
    key, second = "text_encoder.dropout_probability", "text_encoder_2.dropout_probability"
    share = draft.number(key)
    if share:
        note = "the text was zeros there; here it is an empty caption"
        draft.put("dataset.captions.dropout", share, key, note=note)
    if not is_sdxl or draft.number(second) == share:
        draft.unused(second, "as the first text encoder's" if is_sdxl else "this family has one text encoder")


def _put_pictures(draft: Draft) -> None:
    """Several resolutions have commas between them; ``512x768`` is width and height. Small pictures are enlarged."""
    sizes = []
    for part in draft.text("resolution").split(","):
        sides = [values.whole(side) for side in part.lower().split("x")]
        if None not in sides and len(sides) in (1, 2):
            sizes.append((sides[0] or 0, sides[-1] or 0))
    if sizes:
        put_sizes(draft, sizes, "resolution")
    else:
        draft.lost("resolution", "not a size; write 512 or 512x768")
    _put_epochs(draft, max(1, len(sizes)))
    draft.config.setdefault("dataset", {}).setdefault("buckets", {})["upscale"] = True
    variations = [draft.whole(f"{concept}image_variations") or 1 for concept in numbered(draft, "concepts")]
    if variations and draft.flag("latent_caching"):
        keys = [f"{concept}image_variations" for concept in numbered(draft, "concepts")]
        draft.put("dataset.cache.variants", max(variations), *keys)


def _put_epochs(draft: Draft, sizes: int) -> None:
    """There each picture has one of the sizes in an epoch, by chance; here each of them, so that an epoch is longer."""
    epochs = draft.whole("epochs")
    if sizes > 1 and epochs:
        note = f"an epoch here has each picture at each of the {sizes} resolutions, there at one of them by chance"
        draft.put("train.epochs", max(1, round(epochs / sizes)), "epochs", note=note)
    else:
        draft.put("train.epochs", epochs, "epochs")


def _tell_the_rest(draft: Draft) -> None:
    if draft.text("ema") not in ("", "OFF"):
        decay, interval = draft.number("ema_decay") or 0.999, draft.whole("ema_update_step_interval") or 1
        note = "" if interval == 1 else f"once every {interval} steps there; here at each, of the same effect"
        draft.put("train.ema", decay ** (1 / interval), "ema_decay", "ema", "ema_update_step_interval", note=note)
    if draft.is_given("clip_grad_norm"):
        draft.put("train.max_grad_norm", draft.number("clip_grad_norm"), "clip_grad_norm")
    elif "clip_grad_norm" in draft.untold():
        draft.put("train.max_grad_norm", 0.0, "clip_grad_norm")
    draft.all_unused(("ema", "ema_decay", "ema_update_step_interval"), "no EMA")
    rest = draft.untold()
    draft.all_unused([key for key in rest if key.startswith(_OTHER_PARTS)], "for other families and for embeddings")
    draft.all_unused([key for key in rest if key.startswith(_NOT_OURS)], "how that program used its machine and disk")
    parts = [key for key in rest if key.startswith(("unet.", "text_encoder.", "text_encoder_2.", "vae."))]
    draft.all_unused(parts, "of a part as it is here")
    secrets = [key for key in rest if key.startswith("secrets")]
    draft.all_unused(secrets, "secrets are never read from a file; set HF_TOKEN in the environment")
    draft.all_lost(_LOST)


KIND = ConfigKind(label=_LABEL, recognises=_recognises, read=_read)

"""A LoRA file's metadata for people: what matters of it, by topic, in words and with dates and counts worked out."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import Any

Row = dict[str, str]

_LONGEST = 300


def readable_rows(metadata: Mapping[str, str]) -> list[Row]:
    """What is known, as rows ``{"topic", "label", "value"}``; keys without a known meaning are left out."""
    rows = []
    for topic, label, keys, show in _FIELDS:
        for key in keys:
            text = metadata.get(key, "").strip()
            if text and text not in ("None", "null", "{}", "[]"):
                value = printable(show(text))
                if value:
                    rows.append({"topic": topic, "label": label, "value": value})
                    break
    return rows


def printable(text: str, longest: int | None = _LONGEST) -> str:
    """A text without characters that would steer a terminal or turn lines around; cut off where very long."""
    clean = "".join(character if character.isprintable() else " " for character in text)
    return clean if longest is None or len(clean) <= longest else f"{clean[:longest]} ... ({len(clean)} characters)"


def _plain(text: str) -> str:
    return text


def _date(text: str) -> str:
    """Of seconds since 1970."""
    try:
        return datetime.fromtimestamp(float(text), tz=timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    except (ValueError, OverflowError, OSError):
        return text


def _picture(text: str) -> str:
    return f"a picture of about {len(text) * 3 // 4 // 1000} kB" if text.startswith("data:") else text


def _settings(text: str) -> str:
    value = _json(text)
    return ", ".join(f"{key} {each}" for key, each in value.items()) if isinstance(value, dict) else text


def _folders(text: str) -> str:
    value = _json(text)
    if not isinstance(value, dict):
        return text
    told = []
    for name, each in value.items():
        counts = each if isinstance(each, dict) else {}
        told.append(f"{name} ({counts.get('img_count', '?')} pictures x {counts.get('n_repeats', '?')})")
    return ", ".join(told)


def _buckets(text: str) -> str:
    value = _json(text)
    buckets = value.get("buckets") if isinstance(value, dict) else None
    if not isinstance(buckets, dict):
        return ""
    sizes = [each for each in buckets.values() if isinstance(each, dict)]
    return ", ".join(
        f"{'x'.join(map(str, each['resolution']))} ({each.get('count', '?')})"
        for each in sizes
        if isinstance(each.get("resolution"), list)
    )


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


_FIELDS: tuple[tuple[str, str, tuple[str, ...], Callable[[str], str]], ...] = (
    ("About", "Title", ("modelspec.title", "ss_output_name"), _plain),
    ("About", "Author", ("modelspec.author",), _plain),
    ("About", "Description", ("modelspec.description",), _plain),
    ("About", "How to use", ("modelspec.usage_hint",), _plain),
    ("About", "Trigger", ("modelspec.trigger_phrase",), _plain),
    ("About", "Tags", ("modelspec.tags",), _plain),
    ("About", "License", ("modelspec.license",), _plain),
    ("About", "Date", ("modelspec.date",), _plain),
    ("About", "Merged from", ("modelspec.merged_from",), _plain),
    ("About", "Thumbnail", ("modelspec.thumbnail",), _picture),
    ("About", "Comment", ("ss_training_comment",), _plain),
    ("Model", "Base", ("ss_base_model_version", "modelspec.architecture"), _plain),
    ("Model", "Model file", ("ss_sd_model_name",), _plain),
    ("Model", "Its hash", ("ss_new_sd_model_hash", "ss_sd_model_hash"), _plain),
    ("Model", "VAE", ("ss_vae_name",), _plain),
    ("Model", "Predicts", ("modelspec.prediction_type",), _plain),
    ("Model", "Resolution", ("modelspec.resolution", "ss_resolution"), _plain),
    ("Model", "Clip skip", ("ss_clip_skip", "modelspec.encoder_layer"), _plain),
    ("Network", "Module", ("ss_network_module",), _plain),
    ("Network", "Rank", ("ss_network_dim",), _plain),
    ("Network", "Alpha", ("ss_network_alpha",), _plain),
    ("Network", "Dropout", ("ss_network_dropout",), _plain),
    ("Network", "Settings", ("ss_network_args",), _settings),
    ("Training", "Steps", ("ss_steps", "ss_max_train_steps"), _plain),
    ("Training", "Epochs", ("ss_epoch", "ss_num_epochs"), _plain),
    ("Training", "Batch", ("ss_total_batch_size", "ss_batch_size_per_device"), _plain),
    ("Training", "Accumulation", ("ss_gradient_accumulation_steps",), _plain),
    ("Training", "Learning rate", ("ss_learning_rate",), _plain),
    ("Training", "of the UNet", ("ss_unet_lr",), _plain),
    ("Training", "of the text encoder", ("ss_text_encoder_lr",), _plain),
    ("Training", "Schedule", ("ss_lr_scheduler",), _plain),
    ("Training", "Optimizer", ("ss_optimizer",), _plain),
    ("Training", "Precision", ("ss_mixed_precision",), _plain),
    ("Training", "Loss", ("ss_loss_type",), _plain),
    ("Training", "min-SNR gamma", ("ss_min_snr_gamma",), _plain),
    ("Training", "Noise offset", ("ss_noise_offset",), _plain),
    ("Training", "Seed", ("ss_seed",), _plain),
    ("Training", "Began", ("ss_training_started_at",), _date),
    ("Training", "Ended", ("ss_training_finished_at",), _date),
    ("Pictures", "Number", ("ss_num_train_images",), _plain),
    ("Pictures", "Regularization", ("ss_num_reg_images",), _plain),
    ("Pictures", "Folders", ("ss_dataset_dirs",), _folders),
    ("Pictures", "Sizes", ("ss_bucket_info",), _buckets),
)
"""Topic, label, metadata keys of which the first that is there counts, how its text is shown."""

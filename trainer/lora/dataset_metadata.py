"""The data set in a LoRA file's metadata, in sd-scripts' keys: numbers always, names and tags only where asked for."""

from __future__ import annotations

import json
from typing import Any

from trainer.config import Config
from trainer.data.facts import DatasetFacts, Subset, Views


def dataset_metadata(config: Config, facts: DatasetFacts) -> dict[str, Any]:
    """Counts, buckets and settings by folder; with ``output.describe_dataset`` names, class prompts and tags too."""
    sizes = [each.resolution for each in facts.views]
    told: dict[str, Any] = {
        "ss_num_train_images": facts.training_views,
        "ss_num_reg_images": facts.regularization_views,
        "ss_num_validation_images": facts.validation,
        "ss_resolution": sizes[0] if len(sizes) == 1 else sizes,
        "ss_bucket_info": json.dumps(_buckets(facts.views)),
        "ss_datasets": json.dumps([_dataset(config, facts, each) for each in facts.views]),
    }
    if config.output.describe_dataset:
        told["ss_tag_frequency"] = json.dumps(_tag_frequency(facts), ensure_ascii=False)
        told["ss_dataset_dirs"] = json.dumps(_folders(facts, regularization=False), ensure_ascii=False)
        told["ss_reg_dataset_dirs"] = json.dumps(_folders(facts, regularization=True), ensure_ascii=False)
    return told


def _dataset(config: Config, facts: DatasetFacts, views: Views) -> dict[str, Any]:
    """What sd-scripts calls a data set: the pictures at one resolution."""
    buckets = config.dataset.buckets
    return {
        "is_dreambooth": True,
        "batch_size_per_device": config.train.batch_size,
        "num_train_images": views.training,
        "num_reg_images": views.regularization,
        "resolution": views.resolution,
        "enable_bucket": buckets.enabled,
        "min_bucket_reso": buckets.min if buckets.enabled else None,
        "max_bucket_reso": buckets.max if buckets.enabled else None,
        "bucket_info": _buckets([views]),
        "tag_frequency": _tag_frequency(facts) if config.output.describe_dataset else {},
        "subsets": [_subset(config, subset) for subset in facts.subsets],
    }


def _subset(config: Config, subset: Subset) -> dict[str, Any]:
    captions, augment = config.dataset.captions_of(subset.source), config.dataset.augment_of(subset.source)
    told: dict[str, Any] = {
        "img_count": subset.pictures,
        "num_repeats": subset.repeats,
        "is_reg": subset.is_regularization,
        "color_aug": augment.color,
        "flip_aug": augment.flip,
        "random_crop": augment.random_crop,
        "shuffle_caption": captions.shuffle,
        "keep_tokens": captions.keep_tokens,
        "keep_tokens_separator": captions.keep_tokens_separator,
        "secondary_separator": captions.secondary_separator or None,
        "enable_wildcard": captions.wildcards,
        "caption_dropout_rate": captions.dropout,
        "caption_tag_dropout_rate": captions.tag_dropout,
    }
    if config.output.describe_dataset:
        told |= {
            "image_dir": subset.name,
            "class_tokens": subset.class_prompt,
            "caption_prefix": captions.prefix or None,
            "caption_suffix": captions.suffix or None,
        }
    return told


def _buckets(views: list[Views]) -> dict[str, Any]:
    """Buckets as sd-scripts numbers them; its aspect error is the mean over the pictures."""
    sizes = [(size, count) for each in views for size, count in each.buckets.items()]
    error = sum(each.aspect_error for each in views) / len(views)
    return {
        "buckets": {str(number): {"resolution": size, "count": count} for number, (size, count) in enumerate(sizes)},
        "mean_img_ar_error": error,
    }


def _folders(facts: DatasetFacts, *, regularization: bool) -> dict[str, dict[str, int]]:
    """Repeats and pictures by folder; a name that comes again is numbered, as sd-scripts does it."""
    subsets = [(name, subset) for name, subset in _named(facts) if subset.is_regularization == regularization]
    return {name: {"n_repeats": subset.repeats, "img_count": subset.pictures} for name, subset in subsets}


def _tag_frequency(facts: DatasetFacts) -> dict[str, dict[str, int]]:
    return {name: subset.tags for name, subset in _named(facts)}


def _named(facts: DatasetFacts) -> list[tuple[str, Subset]]:
    seen: dict[str, int] = {}
    named = []
    for subset in facts.subsets:
        seen[subset.name] = number = seen.get(subset.name, 0) + 1
        named.append((subset.name if number == 1 else f"{subset.name} ({number})", subset))
    return named

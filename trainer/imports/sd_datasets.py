"""sd-scripts' pictures: ``train_data_dir`` and its like, and dataset configs with ``[[datasets.subsets]]``.

Sources: sd-scripts ``docs/config_README-en.md`` and ``library/config_util.py`` (``ConfigSanitizer``): a setting of a
subset wins over one of its data set, that over ``[general]``, and that over the arguments.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from trainer.imports import values
from trainer.imports.base import ReadText
from trainer.imports.draft import Draft, Rule
from trainer.imports.sizes import put_buckets, put_resolution
from trainer.imports.toml_texts import TomlError, load_toml

_CAPTION_RULES: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "shuffle_caption": ("shuffle", values.flag),
    "caption_separator": ("separator", str),
    "secondary_separator": ("secondary_separator", str),
    "keep_tokens": ("keep_tokens", values.whole),
    "keep_tokens_separator": ("keep_tokens_separator", str),
    "caption_dropout_rate": ("dropout", values.number),
    "caption_dropout_every_n_epochs": ("dropout_every_n_epochs", values.whole),
    "caption_tag_dropout_rate": ("tag_dropout", values.number),
    "token_warmup_step": ("token_warmup_step", values.number),
    "token_warmup_min": ("token_warmup_min", values.whole),
    "caption_prefix": ("prefix", str),
    "caption_suffix": ("suffix", str),
    "enable_wildcard": ("wildcards", values.flag),
}
_AUGMENT_RULES: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "flip_aug": ("flip", values.flag),
    "color_aug": ("color", values.flag),
    "random_crop": ("random_crop", values.flag),
}
_READ_ONLY_HERE = ("debug_dataset", "cache_info", "network_multiplier")
_SHARED = ("resolution", "enable_bucket", "min_bucket_reso", "max_bucket_reso", "bucket_reso_steps",
           "bucket_no_upscale", "batch_size", "caption_extension", "validation_split")  # fmt: skip
"""What holds for all pictures here, and for a data set or a folder there."""


def put_datasets(draft: Draft, companion: ReadText) -> None:
    """Folders and how their pictures and captions are read."""
    for section, rules in (("captions", _CAPTION_RULES), ("augment", _AUGMENT_RULES)):
        for key, (name, read) in rules.items():
            _put_if_given(draft, key, f"dataset.{section}.{name}", read)
    _put_text_encoding(draft)
    datasets = _dataset_config(draft, companion)
    if datasets:
        for key in ("train_data_dir", "reg_data_dir", "in_json"):
            draft.unused(key, "the dataset config wins over it")
        _put_dataset_config(draft, datasets)
    else:
        _put_folders(draft)
        put_resolution(draft, "resolution")
        put_buckets(draft)
    _put_cache(draft)
    _put_masks(draft)


def _put_if_given(draft: Draft, key: str, setting: str, read: Any) -> None:
    if draft.is_given(key):
        draft.apply((Rule(key, setting, read),))
    else:
        draft.unused(key, "empty in the file")


def _put_text_encoding(draft: Draft) -> None:
    _put_if_given(draft, "max_token_length", "dataset.captions.max_token_length", values.whole)
    _put_if_given(draft, "weighted_captions", "dataset.captions.weighted", values.flag)
    _put_if_given(draft, "caption_extention", "dataset.caption_extension", _extension)  # an old spelling
    if not draft.is_given("caption_extention"):
        draft.apply((Rule("caption_extension", "dataset.caption_extension", _extension),))


def _put_folders(draft: Draft) -> None:
    """``train_data_dir`` with its ``N_name`` folders, ``reg_data_dir`` likewise, ``in_json`` for a caption table."""
    sources: list[dict[str, Any]] = []
    if folder := draft.text("train_data_dir"):
        source: dict[str, Any] = {"path": folder}
        keys = ["train_data_dir"]
        if table := draft.text("in_json"):
            source["metadata_file"] = table
            keys.append("in_json")
            if repeats := draft.whole("dataset_repeats"):
                source["repeats"] = repeats
                keys.append("dataset_repeats")
        if masks := draft.text("conditioning_data_dir"):
            source["mask_path"] = masks
            keys.append("conditioning_data_dir")
        sources.append(source)
        _told_sources(draft, sources, *keys)
    if folder := draft.text("reg_data_dir"):
        sources.append({"path": folder, "is_regularization": True})
        _told_sources(draft, sources, "reg_data_dir")
    draft.all_unused(("train_data_dir", "reg_data_dir", "in_json", "dataset_repeats", "dataset_config",
                      "conditioning_data_dir"), "empty in the file")  # fmt: skip


def _told_sources(draft: Draft, sources: list[dict[str, Any]], *keys: str) -> None:
    draft.config.setdefault("dataset", {})["sources"] = sources
    for key in keys:
        draft.tell(f"dataset.sources.{len(sources) - 1}", draft.text(key), key)


def _dataset_config(draft: Draft, companion: ReadText) -> list[dict[str, Any]]:
    """Each folder with all that holds for it; empty where there is no dataset config that can be read."""
    inline = draft.value("datasets")
    if isinstance(inline, list):
        return _folders({"general": draft.value("general") or {}, "datasets": inline})
    name = draft.text("dataset_config")
    text = companion(name) if name else None
    if not name:
        return []
    try:
        data = load_toml(text) if text is not None else {}
    except TomlError:
        data = {}
    folders = _folders(data)
    if folders:
        draft.tell("dataset.sources", f"{len(folders)} folders", "dataset_config")
    else:
        draft.lost(
            "dataset_config", "that file is not here or holds no folders; import it by itself, or add the folders"
        )
    return folders


def _folders(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    general = data.get("general") or {}
    found = []
    for dataset in data.get("datasets") or []:
        of_dataset = {key: value for key, value in dataset.items() if key != "subsets"}
        found += [{**general, **of_dataset, **subset} for subset in dataset.get("subsets") or []]
    return found


def _put_dataset_config(draft: Draft, folders: list[dict[str, Any]]) -> None:
    merged: dict[tuple[str, bool], dict[str, Any]] = {}
    for folder in folders:  # the same folder at several resolutions is one folder here
        merged.setdefault((str(folder.get("image_dir") or ""), bool(folder.get("is_reg"))), folder)
    sources = [_source(folder) for folder in merged.values()]
    key = "datasets" if draft.is_given("datasets") else "dataset_config"
    draft.put("dataset.sources", sources, key)
    shared = {name: [f[name] for f in folders if not values.is_blank(f.get(name))] for name in _SHARED}
    if (repeats := draft.whole("dataset_repeats")) and repeats > 1:
        for source in sources:
            source.setdefault("repeats", repeats)
        draft.tell("dataset.sources", f"repeats: {repeats}", "dataset_repeats")
    draft.unused("dataset_repeats", "once, or said by the folders")
    sizes = shared.pop("resolution")
    if sizes:
        put_resolution(draft, key, sizes)
    else:
        put_resolution(draft, "resolution")
    put_buckets(draft, {name: found[0] for name, found in shared.items() if found}, key)
    if batches := shared["batch_size"]:
        draft.put("train.batch_size", values.whole(batches[0]), key)
    if endings := shared["caption_extension"]:
        draft.put("dataset.caption_extension", _extension(endings[0]), key)
    if splits := shared["validation_split"]:
        draft.put("validation.split", values.number(splits[0]), key)
    differing = [name for name, found in shared.items() if len({str(each) for each in found}) > 1]
    if differing:
        note = f"differs between folders, and is one for all here: {', '.join(differing)}"
        draft.tell("dataset", "the first holds", key, note=note)

    if any(values.flag(folder.get("alpha_mask")) for folder in folders):
        draft.put("loss.masked", "alpha", key)
    elif any(source.get("mask_path") for source in sources):
        draft.put("loss.masked", "mask", key)
    _tell_unknown(draft, folders, key)
    draft.unused("general", "went into the folders")


def _source(folder: Mapping[str, Any]) -> dict[str, Any]:
    source: dict[str, Any] = {"path": str(folder.get("image_dir") or folder.get("metadata_file") or "")}
    given = {
        "repeats": values.whole(folder.get("num_repeats")),
        "is_regularization": values.flag(folder.get("is_reg")),
        "class_prompt": folder.get("class_tokens"),
        "metadata_file": folder.get("metadata_file"),
        "mask_path": folder.get("conditioning_data_dir"),
    }
    source |= {name: value for name, value in given.items() if not values.is_blank(value) and value is not False}
    for section, rules in (("captions", _CAPTION_RULES), ("augment", _AUGMENT_RULES)):
        own = {name: read(folder[key]) for key, (name, read) in rules.items() if not values.is_blank(folder.get(key))}
        if own:
            source[section] = own
    return source


_KNOWN = {"image_dir", "num_repeats", "is_reg", "class_tokens", "metadata_file", "conditioning_data_dir", "alpha_mask",
          *_SHARED, *_CAPTION_RULES, *_AUGMENT_RULES, *_READ_ONLY_HERE}  # fmt: skip


def _tell_unknown(draft: Draft, folders: list[dict[str, Any]], key: str) -> None:
    unknown = sorted({name for folder in folders for name in folder if name not in _KNOWN})
    if unknown:
        draft.lost(key, f"of its folders, not known here: {', '.join(unknown)}")


def _put_cache(draft: Draft) -> None:
    """Caching changes nothing of what is learned, except where pictures are changed by chance."""
    cached = draft.flag("cache_latents") or draft.flag("cache_latents_to_disk")
    augment = draft.config.get("dataset", {}).get("augment", {})
    if cached:
        draft.put("dataset.cache.latents", True, "cache_latents")
    elif augment.get("color") or augment.get("random_crop"):
        draft.put("dataset.cache.latents", False, "cache_latents")
    draft.unused("cache_latents", "off in the file; cached here, which gives the same and is faster")
    draft.unused("cache_latents_to_disk", "caches are kept in the workspace")


def _put_masks(draft: Draft) -> None:
    if draft.flag("alpha_mask"):
        draft.put("loss.masked", "alpha", "alpha_mask")
    sources = draft.config.get("dataset", {}).get("sources", [])
    if draft.flag("masked_loss"):
        if any(source.get("mask_path") for source in sources):
            draft.put("loss.masked", "mask", "masked_loss")
        elif draft.config.get("loss", {}).get("masked") != "alpha":
            draft.lost("masked_loss", "no folder has masks; give one its folder of masks, and set loss.masked")
    elif draft.config.get("loss", {}).get("masked") == "mask":
        draft.config["loss"]["masked"] = False
        for source in sources:
            source.pop("mask_path", None)
    draft.all_unused(("alpha_mask", "masked_loss"), "off in the file, or said by the folders")


def _extension(given: Any) -> str | None:
    """An ending with its dot. Signs that none has here are left out: people write such to have no caption files."""
    ending = re.sub(r"\W", "", values.text(given))
    return f".{ending}" if ending else None

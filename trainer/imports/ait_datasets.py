"""ai-toolkit's datasets and previews (``toolkit/config_modules.py``: ``DatasetConfig``, ``SampleConfig``)."""

from __future__ import annotations

from typing import Any

from trainer.imports import values
from trainer.imports.draft import Draft
from trainer.imports.sizes import put_sizes
from trainer.prompt_lines import parse_line
from trainer.sampler_names import read_sampler

_TRIGGER = "[trigger]"
_CAPTIONS = {
    "shuffle_tokens": ("shuffle", values.flag),
    "keep_tokens": ("keep_tokens", values.whole),
    "token_dropout_rate": ("tag_dropout", values.number),
    "caption_dropout_rate": ("dropout", values.number),
}
_AUGMENT = {"flip_x": ("flip", values.flag), "random_crop": ("random_crop", values.flag)}
_MACHINE = (
    "type", "num_workers", "prefetch_factor", "cache_latents_num_workers", "debug", "replay_transforms",
    "fast_image_size", "load_image_when_caching_latents", "cache_clip_vision_to_disk", "cache_tensors_to_disk",
    "bucket_tolerance", "num_frames", "fps", "shrink_video_to_frames", "do_i2v", "auto_frame_count",
    "trim_auto_frame_count_tail", "do_audio", "audio_normalize", "audio_preserve_pitch", "cache_text_embeddings",
    "batch_size", "network_weight", "controls",
)  # fmt: skip
_LOST = {
    "flip_y": "turned pictures upside down by chance",
    "random_scale": "scaled pictures by chance",
    "scale": "scaled pictures",
    "square_crop": "cropped pictures to squares; switch buckets off",
    "augments": "changed pictures by chance; see dataset.augment",
    "augmentations": "changed pictures by chance; see dataset.augment",
    "control_path": "gave the model control pictures",
    "inpaint_path": "gave the model a part to fill in",
    "unconditional_path": "gave pictures without the concept",
    "clip_image_path": "gave the model pictures as prompts",
    "random_triggers": "added words by chance; wildcards in captions do so: {a|b}",
    "use_short_captions": "read other captions of JSON files",
    "invert_mask": "turned masks around; turn the mask files around",
    "standardize_images": "changed the pictures' colours",
    "loss_multiplier": "counted this folder more or less; use its repeats instead",
    "replacements": "replaced words of captions; do so in the Dataset tab",
    "prior_reg": "learned what the model itself would draw; see loss.preserve",
    "extra_values": "gave the model further numbers",
    "diff_output_preservation": "for this folder alone; see loss.preserve",
}


def with_trigger(text: str, trigger: str) -> str:
    """A text with the trigger word in the places that are left for it."""
    return text.replace(_TRIGGER, trigger) if trigger else text


def put_datasets(draft: Draft, names: list[str], trigger: str) -> None:
    """Each dataset as a folder.

    Args:
        draft: with keys such as ``datasets.0.folder_path``.
        names: the beginnings of their keys, ``datasets.0.`` and so on.
        trigger: the word that calls the LoRA; empty for none.
    """
    sources: list[dict[str, Any]] = []
    for name in names:
        sources.append(_source(draft, name, f"dataset.sources.{len(sources)}", trigger))
    draft.config.setdefault("dataset", {})["sources"] = sources
    _put_sizes(draft, names)
    _put_shared(draft, names)
    _put_masks(draft, names)
    for name in names:
        draft.all_unused([f"{name}{key}" for key in _MACHINE], "how that program used its machine, or for videos")
        draft.all_lost({f"{name}{key}": note for key, note in _LOST.items()})


def _source(draft: Draft, name: str, place: str, trigger: str) -> dict[str, Any]:
    key = f"{name}folder_path" if draft.is_given(f"{name}folder_path") else f"{name}dataset_path"
    source: dict[str, Any] = {"path": draft.text(key)}
    draft.tell(f"{place}.path", source["path"], key)
    if repeats := draft.whole(f"{name}num_repeats"):
        source["repeats"] = repeats
        draft.tell(f"{place}.repeats", repeats, f"{name}num_repeats")
    if draft.flag(f"{name}is_reg"):
        source["is_regularization"] = True
        draft.tell(f"{place}.is_regularization", True, f"{name}is_reg")
    draft.unused(f"{name}is_reg", "off in the file")
    if caption := draft.text(f"{name}default_caption"):
        source["class_prompt"] = with_trigger(caption, trigger)
        draft.tell(f"{place}.class_prompt", source["class_prompt"], f"{name}default_caption")
    for section, rules in (("captions", _CAPTIONS), ("augment", _AUGMENT)):
        for file_key, (setting, read) in rules.items():
            value = read(draft.value(f"{name}{file_key}")) if draft.is_given(f"{name}{file_key}") else None
            if value is not None:
                source.setdefault(section, {})[setting] = value
                note = _difference(draft, name, file_key, trigger) if value else ""
                told = f"{setting}: {values.shown('', value)}"
                draft.tell(f"{place}.{section}", told, f"{name}{file_key}", note=note)
            elif draft.is_given(f"{name}{file_key}"):
                draft.lost(f"{name}{file_key}", f"not a value of {setting}")
    return source


def _difference(draft: Draft, name: str, key: str, trigger: str) -> str:
    """How a caption's option differs there (``toolkit/dataloader_mixins.py``, ``get_caption``)."""
    if key == "keep_tokens" and draft.flag(f"{name}shuffle_tokens"):
        return "shuffled there, too, and only never dropped; here they stay in front"
    if key == "caption_dropout_rate" and trigger:
        return "the trigger word was left then; here nothing is"
    return ""


def _put_sizes(draft: Draft, names: list[str]) -> None:
    """Several resolutions train each picture at each of them, as here; they hold for all folders here."""
    given = {name: _sides(draft.value(f"{name}resolution") or 512) for name in names}
    keys = [f"{name}resolution" for name in names]
    sides = list(dict.fromkeys(side for each in given.values() for side in each)) or [512]
    differ = len({tuple(each) for each in given.values()}) > 1
    note = "the folders differ in resolution; here every picture is trained at each of them" if differ else ""
    put_sizes(draft, [(side, side) for side in sides], *(keys or ["datasets"]), note=note)


def _sides(given: Any) -> list[int]:
    parts = given if isinstance(given, list) else [given]
    return [side for part in parts if (side := values.whole(part))]


def _put_shared(draft: Draft, names: list[str]) -> None:
    """The ending of caption files, buckets and caches are one for all here."""
    for name in names:
        for key in ("caption_ext", "caption_type"):
            ending = draft.text(f"{name}{key}").lstrip(".")
            if ending == "json":
                draft.lost(f"{name}{key}", "captions in JSON files are not read; bring them in by the Dataset tab")
            elif ending:
                draft.put("dataset.caption_extension", f".{ending}", f"{name}{key}")
            draft.unused(f"{name}{key}", "empty in the file")
        if draft.is_given(f"{name}buckets"):
            draft.put("dataset.buckets.enabled", draft.flag(f"{name}buckets"), f"{name}buckets")
        for key in ("cache_latents", "cache_latents_to_disk"):
            if draft.flag(f"{name}{key}"):
                draft.put("dataset.cache.latents", True, f"{name}{key}")
            draft.unused(f"{name}{key}", "off in the file; cached here, which gives the same and is faster")


def _put_masks(draft: Draft, names: list[str]) -> None:
    sources = draft.config["dataset"]["sources"]
    for number, name in enumerate(names):
        if draft.flag(f"{name}alpha_mask"):
            note = "" if len(names) == 1 else "holds for all folders here"
            draft.put("loss.masked", "alpha", f"{name}alpha_mask", note=note)
        elif masks := draft.text(f"{name}mask_path"):
            sources[number]["mask_path"] = masks
            draft.put("loss.masked", "mask", f"{name}mask_path")
        if draft.config.get("loss", {}).get("masked") and (least := draft.number(f"{name}mask_min_value")):
            draft.put("loss.unmasked_weight", least, f"{name}mask_min_value")
        draft.all_unused((f"{name}alpha_mask", f"{name}mask_path", f"{name}mask_min_value"), "no masks")


def put_samples(draft: Draft, trigger: str, batches: int) -> None:
    """When previews are drawn, and of what; ``[trigger]`` is filled in. Steps are of ``batches`` batches each."""
    if draft.flag("train.disable_sampling"):
        draft.put("samples.every_steps", 0, "train.disable_sampling")
    else:
        every = -(-(draft.whole("sample.sample_every") or 0) // batches)
        note = f"counted in batches there, {batches} of which are a step" if batches > 1 else ""
        draft.put("samples.every_steps", every, "sample.sample_every", note=note)
    skips = draft.flag("train.skip_first_sample") and not draft.flag("train.force_first_sample")
    draft.put("samples.at_start", not skips, "train.skip_first_sample")
    draft.all_unused(("train.disable_sampling", "train.force_first_sample"), "off in the file")
    keys = [key for key in draft.untold() if key.startswith("sample.samples.") and key.endswith(".prompt")]
    prompts = draft.value("sample.prompts")
    lines = prompts if isinstance(prompts, list) else []
    listed = [_item(draft, key.removesuffix("prompt")) for key in keys] or [{"prompt": str(line)} for line in lines]
    shared = _shared(draft)
    for number, each in enumerate(listed):
        inline = {key: value for key, value in parse_line(each["prompt"]).items() if not key.startswith("--")}
        walked = {"seed": shared["seed"] + number} if draft.flag("sample.walk_seed") else {}
        listed[number] = shared | walked | each | inline | {"prompt": with_trigger(inline["prompt"], trigger)}
    if listed:
        draft.put("samples.prompts", listed, *(keys or ["sample.prompts"]))
        draft.tell("samples.prompts", "in each of them", *_SHARED_KEYS)
    draft.all_unused(("sample.prompts", *_SHARED_KEYS), "there are no preview prompts, or it is the usual")


_SHARED_KEYS = (
    "sample.width", "sample.height", "sample.neg", "sample.seed", "sample.walk_seed", "sample.guidance_scale",
    "sample.sample_steps", "sample.sampler",
)  # fmt: skip


def _shared(draft: Draft) -> dict[str, Any]:
    sampler = read_sampler(draft.text("sample.sampler").removeprefix("k_"))
    return {
        "width": _side(draft.whole("sample.width")),
        "height": _side(draft.whole("sample.height")),
        "negative": draft.text("sample.neg") if draft.value("sample.neg") is not False else "",
        "seed": draft.whole("sample.seed") or 0,
        "guidance": draft.number("sample.guidance_scale"),
        "steps": draft.whole("sample.sample_steps"),
        "sampler": sampler[0] if sampler else "euler",
    }


def _item(draft: Draft, name: str) -> dict[str, Any]:
    """One of ``sample.samples``, which may have values of its own."""
    fields = {"neg": "negative", "width": "width", "height": "height", "seed": "seed", "guidance_scale": "guidance"}
    fields |= {"sample_steps": "steps"}
    item: dict[str, Any] = {"prompt": draft.text(f"{name}prompt")}
    for key, field in fields.items():
        if draft.is_given(f"{name}{key}"):
            given = draft.value(f"{name}{key}")
            item[field] = _side(values.whole(given)) if field in ("width", "height") else given
            draft.tell(f"samples.prompts.{field}", item[field], f"{name}{key}")
    return item


def _side(given: int | None) -> int | None:
    return None if given is None else max(64, given - given % 8)

"""OneTrainer's concepts and sample definitions.

Sources: OneTrainer ``modules/util/config/ConceptConfig.py`` and ``SampleConfig.py``, and mgds ``ScaleCropImage``,
``DropTags`` and ``ShuffleTags`` (https://github.com/Nerogar/mgds) for what its options do.
"""

from __future__ import annotations

import json
from typing import Any

from trainer.imports import values
from trainer.imports.base import ReadText
from trainer.imports.draft import Draft, numbered

_ON_BY_ITSELF = {"enabled": True, "image.enable_crop_jitter": True, "text.keep_tags_count": 1, "balancing": 1.0}
_COLOURS = ("brightness", "contrast", "saturation", "hue")
_LOST = {
    "image.enable_fixed_flip": "mirrored every picture; mirror the files instead (Dataset tab)",
    "image.enable_random_rotate": "rotated pictures by chance",
    "image.enable_fixed_rotate": "rotated every picture; rotate the files instead (Dataset tab)",
    "image.enable_fixed_brightness": "changed every picture; change the files instead",
    "image.enable_fixed_contrast": "changed every picture; change the files instead",
    "image.enable_fixed_saturation": "changed every picture; change the files instead",
    "image.enable_fixed_hue": "changed every picture; change the files instead",
    "image.enable_resolution_override": "gave this folder a resolution of its own; dataset.resolution holds for all",
    "image.enable_random_circular_mask_shrink": "shrank masks by chance",
    "image.enable_random_mask_rotate_crop": "cropped around masks by chance",
    "text.tag_dropout_special_tags": "treated some tags otherwise when dropping",
    "text.caps_randomize_enable": "changed upper and lower case by chance",
}
_SAMPLERS = {
    "DDIM": "ddim",
    "EULER": "euler",
    "EULER_A": "euler_a",
    "EULER_KARRAS": "euler_karras",
    "DPMPP": "dpmpp_2m",
    "DPMPP_KARRAS": "dpmpp_2m_karras",
    "DPMPP_SDE": "dpmpp_2m_sde",
    "DPMPP_SDE_KARRAS": "dpmpp_2m_sde_karras",
    "UNIPC": "unipc",
    "UNIPC_KARRAS": "unipc_karras",
}
_SAMPLE_FIELDS = {
    "prompt": "prompt",
    "negative_prompt": "negative",
    "width": "width",
    "height": "height",
    "seed": "seed",
    "diffusion_steps": "steps",
    "cfg_scale": "guidance",
}


def companion_list(companion: ReadText, name: str) -> list[Any]:
    """A list of concepts or samples from the file that is named; empty where it cannot be read."""
    text = companion(name) if name else None
    try:
        data = json.loads(text) if text is not None else []
    except (ValueError, RecursionError):
        return []
    return data if isinstance(data, list) else []


def put_concepts(draft: Draft, companion: ReadText) -> None:
    """Each concept as a folder; those for validation as the validation's."""
    concepts = numbered(draft, "concepts")
    for concept in concepts:
        _tell_defaults(draft, concept)
        if not _is_on(draft, concept, "enabled"):
            rest = [key for key in draft.untold() if key.startswith(concept)]
            draft.all_unused(rest, "this concept is switched off in the file")
        elif draft.text(f"{concept}type") == "VALIDATION" or draft.flag(f"{concept}validation_concept"):
            _put_validation(draft, concept)
        else:
            _put_source(draft, concept, companion)
    if not draft.config.get("dataset", {}).get("sources"):
        draft.lost("concept_file_name", "that file is not here; import a config with its concepts, or add the folders")
    draft.unused("concept_file_name", "its concepts are told one by one")
    for concept in concepts:
        rest = [key for key in draft.untold() if key.startswith(concept)]
        draft.all_unused(rest, "not used by what is switched on")


def _tell_defaults(draft: Draft, concept: str) -> None:
    for name in ("name", "seed", "concept_stats", "__version", "image.__version", "text.__version"):
        draft.unused(f"{concept}{name}", "changes nothing here")
    stats = [key for key in draft.untold() if key.startswith(f"{concept}concept_stats.")]
    draft.all_unused(stats, "changes nothing here")


def _is_on(draft: Draft, concept: str, name: str) -> bool:
    key = f"{concept}{name}"
    return draft.flag(key) if draft.is_given(key) else bool(_ON_BY_ITSELF.get(name, False))


def _put_validation(draft: Draft, concept: str) -> None:
    key = f"{concept}path"
    if "path" in draft.config.get("validation", {}):
        draft.lost(key, "one folder is validated on; put its pictures into the first one's")
    else:
        draft.put("validation.path", draft.text(key), key, f"{concept}type")


def _put_source(draft: Draft, concept: str, companion: ReadText) -> None:
    sources = draft.config.setdefault("dataset", {}).setdefault("sources", [])
    source: dict[str, Any] = {"path": draft.text(f"{concept}path")}
    place = f"dataset.sources.{len(sources)}"
    sources.append(source)
    draft.tell(f"{place}.path", source["path"], f"{concept}path")
    _put_repeats(draft, concept, source, place)
    if draft.text(f"{concept}type") == "PRIOR_PREDICTION":
        source["is_regularization"] = True
        note = (
            "learned what the model itself would draw; here its captions' pictures are learned, see loss.preserve too"
        )
        draft.tell(f"{place}.is_regularization", True, f"{concept}type", note=note)
    _put_augment(draft, concept, source, place)
    _put_captions(draft, concept, source, place, companion)
    if draft.number(f"{concept}loss_weight") not in (None, 1.0):
        draft.lost(f"{concept}loss_weight", "counted this folder more or less; use its repeats instead")
    draft.unused(f"{concept}include_subdirectories", "here subfolders are always read")
    for name, note in _LOST.items():
        if draft.is_given(f"{concept}{name}"):
            draft.lost(f"{concept}{name}", note)


def _put_repeats(draft: Draft, concept: str, source: dict[str, Any], place: str) -> None:
    key = f"{concept}balancing" if draft.is_given(f"{concept}balancing") else f"{concept}repeats"
    repeats = draft.number(key)
    if draft.text(f"{concept}balancing_strategy") == "SAMPLES":
        draft.lost(key, "took so many pictures of this folder each epoch; here all of it is seen, by its repeats")
    elif repeats is not None:
        source["repeats"] = max(1, round(repeats))
        note = "" if source["repeats"] == repeats else f"{repeats:g} is no whole number of times"
        draft.tell(f"{place}.repeats", source["repeats"], key, note=note)


def _put_augment(draft: Draft, concept: str, source: dict[str, Any], place: str) -> None:
    augment: dict[str, Any] = {"random_crop": _is_on(draft, concept, "image.enable_crop_jitter")}
    draft.tell(f"{place}.augment", f"random_crop: {augment['random_crop']}", f"{concept}image.enable_crop_jitter")
    if _is_on(draft, concept, "image.enable_random_flip"):
        augment["flip"] = True
        draft.tell(f"{place}.augment", "flip: true", f"{concept}image.enable_random_flip")
    for colour in _COLOURS:
        if _is_on(draft, concept, f"image.enable_random_{colour}"):
            augment["color"] = True
            keys = (f"{concept}image.enable_random_{colour}", f"{concept}image.random_{colour}_max_strength")
            draft.tell(f"{place}.augment", "color: true", *keys, note="hue and brightness change, each a little")
    source["augment"] = augment


def _put_captions(draft: Draft, concept: str, source: dict[str, Any], place: str, companion: ReadText) -> None:
    captions: dict[str, Any] = {}
    shuffles = _is_on(draft, concept, "text.enable_tag_shuffling")
    if shuffles:
        captions["shuffle"] = True
        draft.tell(f"{place}.captions", "shuffle: true", f"{concept}text.enable_tag_shuffling")
    drops = _is_on(draft, concept, "text.tag_dropout_enable")
    if drops:
        _put_tag_dropout(draft, concept, captions, place)
    if shuffles or drops:
        kept = draft.whole(f"{concept}text.keep_tags_count")
        captions["keep_tokens"] = _ON_BY_ITSELF["text.keep_tags_count"] if kept is None else kept
        draft.tell(f"{place}.captions", f"keep_tokens: {captions['keep_tokens']}", f"{concept}text.keep_tags_count")
        separator = str(draft.value(f"{concept}text.tag_delimiter") or ",")
        if separator.strip() != ",":
            captions["separator"] = separator
            draft.tell(f"{place}.captions", f"separator: {separator}", f"{concept}text.tag_delimiter")
    if captions:
        source["captions"] = captions
    _put_prompt_source(draft, concept, source, place, companion)


def _put_tag_dropout(draft: Draft, concept: str, captions: dict[str, Any], place: str) -> None:
    key, mode = f"{concept}text.tag_dropout_probability", draft.text(f"{concept}text.tag_dropout_mode") or "FULL"
    share = draft.number(key) or 0.0
    if mode == "RANDOM":
        captions["tag_dropout"] = share
        draft.tell(f"{place}.captions", f"tag_dropout: {share:g}", key, f"{concept}text.tag_dropout_mode")
    elif mode == "FULL":
        captions["dropout"] = share
        note = "dropped all tags but the kept ones at once; here the whole caption"
        draft.tell(f"{place}.captions", f"dropout: {share:g}", key, f"{concept}text.tag_dropout_mode", note=note)
    else:
        captions["tag_dropout"] = share
        note = "dropped later tags more often; here all alike"
        draft.tell(f"{place}.captions", f"tag_dropout: {share:g}", key, f"{concept}text.tag_dropout_mode", note=note)


def _put_prompt_source(draft: Draft, concept: str, source: dict[str, Any], place: str, companion: ReadText) -> None:
    """Captions from a file beside each picture are the usual way; a file for all of them may hold several lines."""
    key, name = f"{concept}text.prompt_source", f"{concept}text.prompt_path"
    where = draft.text(key) or "sample"
    if where == "filename":
        draft.lost(key, "took the file's name as its caption; the captioner `File name` of the Dataset tab writes it")
    elif where == "concept":
        text = companion(draft.text(name))
        lines = [line.strip() for line in (text or "").splitlines() if line.strip()]
        if not lines:
            draft.lost(name, "that file is not here; write its line as the folder's class prompt")
            return
        source["class_prompt"] = lines[0]
        note = "for pictures without a caption file" + (
            f"; {len(lines) - 1} other lines are left out" if lines[1:] else ""
        )
        draft.tell(f"{place}.class_prompt", lines[0], name, key, note=note)


def put_samples(draft: Draft) -> None:
    """Preview prompts; those that are switched off are left out."""
    prompts: list[dict[str, Any]] = []
    for sample in numbered(draft, "samples"):
        if draft.is_given(f"{sample}enabled") and not draft.flag(f"{sample}enabled"):
            rest = [key for key in draft.untold() if key.startswith(sample)]
            draft.all_unused(rest, "this sample is switched off in the file")
            continue
        prompts.append(_sample(draft, sample, f"samples.prompts.{len(prompts)}"))
        rest = [key for key in draft.untold() if key.startswith(sample)]
        draft.all_unused(rest, "not for pictures of these families, or as the training has it")
    if prompts:
        draft.config.setdefault("samples", {})["prompts"] = prompts
        draft.unused("sample_definition_file_name", "its samples are told one by one")
    elif draft.is_given("sample_definition_file_name"):
        draft.lost("sample_definition_file_name", "that file is not here; write the prompts under Previews")


def _sample(draft: Draft, sample: str, place: str) -> dict[str, Any]:
    prompt: dict[str, Any] = {}
    for key, name in _SAMPLE_FIELDS.items():
        value = _of_prompt(name, draft.value(f"{sample}{key}"))
        if not values.is_blank(value):
            prompt[name] = value
            draft.tell(f"{place}.{name}", value, f"{sample}{key}")
    if draft.flag(f"{sample}random_seed"):
        prompt.pop("seed", None)
        draft.lost(f"{sample}random_seed", "drew another seed each time; here the same one shows what changes")
    sampler = draft.text(f"{sample}noise_scheduler")
    if sampler:
        prompt["sampler"] = _SAMPLERS.get(sampler, "ddim")
        note = "" if sampler in _SAMPLERS else "not there; ddim is used"
        draft.tell(f"{place}.sampler", prompt["sampler"], f"{sample}noise_scheduler", note=note)
    return prompt


def _of_prompt(name: str, given: Any) -> Any:
    """A prompt's value as ours; sides are rounded down to 8 pixels."""
    if name in ("prompt", "negative"):
        return given
    if name == "guidance":
        return values.number(given)
    number = values.whole(given)
    return max(64, number // 8 * 8) if name in ("width", "height") and number is not None else number

"""How a LoRA was made, by what its file says: ``ss_*`` of sd-scripts and ours, or the config of OneTrainer in it.

Sources: sd-scripts ``train_network.py`` (the ``metadata`` of a run); OneTrainer ``ot_config`` in its
``modules/modelSaver/mixin/DtypeModelSaverMixin.py``. A file never says where pictures and models lie.
"""

from __future__ import annotations

import json
from typing import Any

from trainer.errors import UserError
from trainer.imports import values
from trainer.imports.base import ConfigKind, Document, Imported
from trainer.imports.draft import Draft, Rule
from trainer.imports.kinds import onetrainer
from trainer.imports.kinds.sd_scripts import with_network_arguments
from trainer.imports.sd_arguments import DEFAULTS, put_arguments
from trainer.imports.sd_optimizer import known_optimizer

_LABEL = "LoRA file"
_PREFIX = "ss_"
_ONETRAINER = "ot_config"
_RENAMED = {
    "batch_size_per_device": "train_batch_size",
    "debiased_estimation": "debiased_estimation_loss",
    "sd_model_name": "pretrained_model_name_or_path",
    "vae_name": "vae",
    "lr_min_ratio": "lr_scheduler_min_lr_ratio",
    "lr_num_cycles": "lr_scheduler_num_cycles",
    "lr_power": "lr_scheduler_power",
    "title": "metadata_title",
    "author": "metadata_author",
    "license": "metadata_license",
    "tags": "metadata_tags",
    "description": "metadata_description",
}
"""Keys of the file, without what stands in front of them, whose arguments are called otherwise."""
_OF_PEOPLE = ("title", "author", "license", "tags", "description", "trigger_phrase")
"""Keys of ``modelspec`` that are settings."""
_VERSIONS: dict[str, dict[str, Any]] = {
    "sd_v1": {},
    "sd_v2": {"v2": True},
    "sd_v2_v": {"v2": True, "v_parameterization": True},
    "sdxl_base_v1-0": {"sdxl": True},
}
_OURS = ("target", "block_ranks", "block_lrs")
"""Arguments that only our files have."""
_OUR_RULES = (
    Rule("ours.target", "lora.target", values.text),
    Rule("ours.block_ranks", "lora.block_ranks", lambda given: _json(given) or None),
    Rule("ours.block_lrs", "lora.block_lrs", lambda given: _json(given) or None),
    Rule("trigger_phrase", "output.trigger", values.text),
    Rule("ema_decay", "train.ema", values.number),
    Rule("timestep_sampling", "loss.timestep_sampling", values.text),
)


def _recognises(document: Document) -> bool:
    return document.syntax == "safetensors"


def _read(document: Document) -> Imported:
    """Raises UserError for a file that does not say how it was trained."""
    metadata = document.mapping
    if _ONETRAINER in metadata:
        return onetrainer.KIND.read(Document("json", _json(metadata[_ONETRAINER])))
    if "ss_network_dim" not in metadata and "ss_learning_rate" not in metadata:
        message = "This file does not say how it was trained."
        raise UserError("import.no_settings", message, "Its rank and layers are told under Merge, Inspect.")
    given, as_written = _as_arguments(metadata)
    draft = Draft(given, DEFAULTS, as_written)
    _tell_version(draft)
    put_arguments(draft, document.companion, sdxl=draft.is_given("sdxl"))
    draft.apply(rule for rule in _OUR_RULES if draft.is_given(rule.key))
    _tell_places(draft)
    draft.all_unused(draft.untold(), "tells of the training's result, or of the file")
    return draft.finished(_LABEL)


def _as_arguments(metadata: dict[str, Any]) -> tuple[dict[str, Any], dict[str, tuple[str, Any]]]:
    """sd-scripts' arguments, and the key and value that each has in the file."""
    given: dict[str, Any] = {}
    as_written: dict[str, tuple[str, Any]] = {}
    for key, value in metadata.items():
        name = key.removeprefix(_PREFIX)
        is_setting = key.startswith(_PREFIX) or key.removeprefix("modelspec.") in _OF_PEOPLE
        name = name.removeprefix("modelspec.") if is_setting else f"told.{key}"
        name = _RENAMED.get(name, name)
        given[name], as_written[name] = value, (key, value)
    version = values.text(given.get("base_model_version", ""))
    given |= _VERSIONS.get(version, {})
    as_written |= dict.fromkeys(_VERSIONS.get(version, {}), ("ss_base_model_version", version))
    _set_optimizer(given, as_written)
    _set_dataset(given, as_written)
    network = _json(given.get("network_args"))
    ours = {f"ours.{name}": network.pop(name) for name in _OURS if name in network}
    arguments = with_network_arguments({"network_args": [f"{name}={value}" for name, value in network.items()]})
    written = given.pop("network_args", "")
    as_written |= dict.fromkeys({**ours, **arguments}, ("ss_network_args", written))
    return given | ours | arguments, as_written


def _set_optimizer(given: dict[str, Any], as_written: dict[str, tuple[str, Any]]) -> None:
    """``module.Class(name=value,...)`` as name and arguments."""
    written = given.pop("optimizer", "")
    path, _, arguments = values.text(written).partition("(")
    if path:
        given |= {"optimizer_type": known_optimizer(path), "optimizer_args": arguments.removesuffix(")")}
        as_written |= dict.fromkeys(("optimizer_type", "optimizer_args"), ("ss_optimizer", written))


def _set_dataset(given: dict[str, Any], as_written: dict[str, tuple[str, Any]]) -> None:
    """What the first data set says, where the file has nothing of its own; folders are only counted there."""
    datasets = _json(given.get("datasets"))
    first = datasets[0] if isinstance(datasets, list) and datasets and isinstance(datasets[0], dict) else {}
    subset: dict[str, Any] = next((each for each in first.get("subsets") or [] if not each.get("is_reg")), {})
    for source in (first, subset):
        for key, value in source.items():
            name = _RENAMED.get(key, key)
            if name in _FROM_DATASETS and values.is_blank(given.get(name)) and not isinstance(value, dict | list):
                given[name], as_written[name] = value, ("ss_datasets", given["datasets"])
    size = first.get("resolution")
    if values.is_blank(given.get("resolution")) and not values.is_blank(size):
        given["resolution"] = ",".join(map(str, size)) if isinstance(size, list) else size
        as_written["resolution"] = ("ss_datasets", given["datasets"])
    given["told.datasets"] = given.pop("datasets", "")
    as_written["told.datasets"] = ("ss_datasets", given["told.datasets"])


_FROM_DATASETS = {
    "train_batch_size", "enable_bucket", "min_bucket_reso", "max_bucket_reso", "bucket_no_upscale", "flip_aug",
    "color_aug", "random_crop", "shuffle_caption", "keep_tokens", "keep_tokens_separator", "secondary_separator",
    "enable_wildcard", "caption_prefix", "caption_suffix", "caption_dropout_rate", "caption_dropout_every_n_epochs",
    "caption_tag_dropout_rate", "token_warmup_step", "token_warmup_min",
}  # fmt: skip


def _tell_version(draft: Draft) -> None:
    version = draft.text("base_model_version")
    if version and version not in _VERSIONS:
        draft.lost(
            "base_model_version", "such models cannot be trained here; choose a Stable Diffusion 1, 2 or XL model"
        )


def _tell_places(draft: Draft) -> None:
    """A file says what a model is called, and not where it is."""
    base = draft.config.get("model", {}).pop("base", None)
    if base:
        draft.move_to_lost("model.base", "only its name is told; choose the model")
    draft.config.get("model", {}).pop("vae", None)
    draft.move_to_lost("model.vae", "only its name is told; choose the file")
    draft.lost("dataset_dirs", "the folders' names, and not where they are; add them under Folders")
    draft.lost("reg_dataset_dirs", "the folders' names, and not where they are; add them under Folders")


def _json(given: Any) -> Any:
    """A value that is JSON in text; an empty mapping where it is none."""
    try:
        return json.loads(given) if isinstance(given, str) else {}
    except (ValueError, RecursionError):
        return {}


KIND = ConfigKind(label=_LABEL, recognises=_recognises, read=_read)

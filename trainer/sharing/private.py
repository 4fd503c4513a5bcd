"""What is nobody's business: taken out of settings and metadata before they are sent, and looked for once more."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath, PureWindowsPath
from typing import Any

from trainer.config import Config
from trainer.config_io import dump_changes
from trainer.config_paths import paths_in, put_at
from trainer.errors import UserError
from trainer.hub_names import HUB_ID
from trainer.single_file.header import LENGTH_BYTES, header_length

_MODELS = ("model.base", "model.vae")
_OF_PICTURES = ("dataset.", "validation.")
_PLACEHOLDERS = {"path": "pictures", "mask_path": "masks", "metadata_file": "captions.json"}
_TELLS_PICTURES = ("ss_tag_frequency", "ss_dataset_dirs", "ss_reg_dataset_dirs")
_OF_SUBSET = (
    *("image_dir", "class_tokens", "caption_prefix", "caption_suffix"),
    *("metadata_file", "conditioning_data_dir"),
)
"""Keys in sd-scripts' ``ss_datasets`` that name folders and words of captions."""
_SHORTEST = 4
"""Characters of a path that are looked for: shorter ones, like ``/``, are everywhere."""


def shared_settings(config: Config, *, describe_dataset: bool, prompts: bool) -> str:
    """The settings as YAML, without paths; names of folders, class prompts, prefix and suffix only where asked for.

    Args:
        config: the run's.
        describe_dataset: whether it may tell about the pictures.
        prompts: whether preview prompts may be told.
    """
    values = config.model_dump(mode="json", exclude_defaults=True)
    for name, path in list(paths_in(values)):
        put_at(values, name, _name_of(name, path, describe_dataset))
    if not describe_dataset:
        dataset = values.get("dataset", {})
        for place in (dataset, *dataset.get("sources", [])):
            _drop(place, "class_prompt")
            _drop(place.get("captions") or {}, "prefix", "suffix")
    if not prompts:
        values.pop("samples", None)
    _drop(values, "tracking", "trackers")
    _drop(values.get("output", {}), "hub_repo")
    return dump_changes(Config.model_validate(values))


def shared_metadata(metadata: dict[str, str], *, describe_dataset: bool) -> dict[str, str]:
    """A LoRA file's metadata as it may be sent: of paths the last part, and nothing of the pictures unless asked for.

    What files of other programs say is brought to the rule that ours follow (``output.describe_dataset``).
    """
    kept = {name: _without_folders(value) for name, value in metadata.items()}
    if not describe_dataset:
        kept = {name: value for name, value in kept.items() if name not in _TELLS_PICTURES}
        if "ss_datasets" in kept:
            kept["ss_datasets"] = _datasets_in_numbers(kept["ss_datasets"])
    if kept != metadata:
        kept.pop("sshs_legacy_hash", None)  # of the file as it was; the other hash is of the tensors alone
    return kept


def with_metadata(path: Path, metadata: dict[str, str], target: Path) -> None:
    """A copy of a safetensors file with other metadata; its tensors are the same bytes."""
    with path.open("rb") as source, target.open("wb") as copy:
        table = json.loads(source.read(header_length(source.read(LENGTH_BYTES))))
        table.pop("__metadata__", None)
        text = json.dumps({"__metadata__": metadata, **table}, separators=(",", ":"), ensure_ascii=False).encode()
        text += b" " * (-len(text) % LENGTH_BYTES)
        copy.write(len(text).to_bytes(LENGTH_BYTES, "little") + text)
        while block := source.read(1 << 20):
            copy.write(block)


def private_words(config: Config | None, places: Iterable[Path], token: str | None) -> list[str]:
    """What must not be in anything that is sent: folders of this machine, and the access token."""
    named = [path for _, path in paths_in(config.model_dump(mode="json"))] if config else []
    folders = [path for path in named if PurePath(path).is_absolute()]
    folders += [str(place) for place in (*places, Path.home())]
    return [word for word in {*folders, token or ""} if len(word) >= _SHORTEST]


def check_nothing_private(name: str, text: bytes, words: Iterable[str]) -> None:
    """Raise UserError when a file that is to be sent holds one of the words. A last look: it should never be needed."""
    if any(word.encode() in text for word in words):
        message = f"{name} would tell a folder of this machine, or its access token, and is not sent."
        hint = "Look through title, description, prompts and tags for paths."
        raise UserError("share.private", message, hint)


def _name_of(field: str, path: str, describe_dataset: bool) -> str:
    """What is told in a path's place."""
    if field in _MODELS and (path == "demo" or HUB_ID.fullmatch(path)):
        return path
    if field.startswith(_OF_PICTURES) and not describe_dataset:
        return _PLACEHOLDERS[field.rpartition(".")[2]]
    return path if "://" in path else _last_part(path)


def _last_part(path: str) -> str:
    return PureWindowsPath(path).name or PurePath(path).name or "folder"  # it knows both kinds of slashes


def _without_folders(value: str) -> str:
    """A value that is a full path, of any system, as its last part."""
    is_path = PurePath(value).is_absolute() or (PureWindowsPath(value).drive and "\\" in value)
    return _last_part(value) if is_path and "\n" not in value else value


def _datasets_in_numbers(text: str) -> str:
    try:
        datasets = json.loads(text)
    except (ValueError, RecursionError):
        return "[]"
    before = json.dumps(datasets)
    for each in _objects(datasets):
        if each.get("tag_frequency"):
            each["tag_frequency"] = {}
        for subset in _objects(each.get("subsets")):
            _drop(subset, *_OF_SUBSET)
    now = json.dumps(datasets)
    return text if now == before else now


def _objects(values: Any) -> Iterator[dict[str, Any]]:
    yield from (each for each in (values if isinstance(values, list) else []) if isinstance(each, dict))


def _drop(values: dict[str, Any], *names: str) -> None:
    for name in names:
        values.pop(name, None)

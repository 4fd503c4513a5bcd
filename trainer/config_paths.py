"""Files and folders that a config names: relative ones are meant from the config file's own folder. Never torch.

What is given with ``--set`` is meant from the folder that the command runs in, as with any command. A run's own config
holds full paths, so that it means the same wherever it is gone on with.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trainer.config import Config

PATH_FIELDS = (
    "model.base",
    "model.vae",
    "dataset.sources.*.path",
    "dataset.sources.*.metadata_file",
    "dataset.sources.*.mask_path",
    "validation.path",
    "lora.init_from",
    "lora.merge_before_training.*.path",
)
"""Every setting that names a file or folder; ``*`` is any entry of a list."""

_MODELS = ("model.base", "model.vae")
_ADDRESS = re.compile(r"\w+://")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_FILE = re.compile(r"(?i).*\.(safetensors|ckpt)")


def with_full_paths(values: dict[str, Any], *folders: Path) -> dict[str, Any]:
    """Plain settings with full paths. The given ones are not changed.

    Args:
        values: as read from YAML, not yet checked: what is of the wrong type is left as it is.
        folders: where relative paths may start, the usual one first. A path that leads to nothing from any of them is
            taken from the first, and told as missing later.
    """
    changed = values
    for field in PATH_FIELDS:
        changed = _changed(changed, field.split("."), folders, is_model=field in _MODELS)
    return changed


def config_with_full_paths(config: Config, folder: Path) -> Config:
    """A config whose relative paths are meant from ``folder``; a copy, where there are any."""
    values = config.model_dump(mode="json")
    full = with_full_paths(values, folder)
    return config if full == values else Config.model_validate(full)


def paths_in(values: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Every file and folder that plain settings name, with the setting's dotted name."""
    for field in PATH_FIELDS:
        yield from _found(values, field.split("."), "")


def _changed(value: Any, keys: list[str], folders: tuple[Path, ...], *, is_model: bool) -> Any:
    if not keys:
        return _full(value, folders, is_model=is_model) if isinstance(value, str) and value else value
    key, rest = keys[0], keys[1:]
    if key == "*" and isinstance(value, list):
        return [_changed(item, rest, folders, is_model=is_model) for item in value]
    if isinstance(value, dict) and key in value:
        return {**value, key: _changed(value[key], rest, folders, is_model=is_model)}
    return value


def _full(given: str, folders: tuple[Path, ...], *, is_model: bool) -> str:
    if _ADDRESS.match(given) or (is_model and given == "demo"):
        return given
    try:
        path = Path(given).expanduser()
    except RuntimeError:  # ~name of nobody
        return given
    if path.is_absolute():
        return str(path)
    found = next((folder / path for folder in folders if (folder / path).exists()), None)
    if found is None and is_model and _HUB_ID.fullmatch(given) and not _FILE.fullmatch(given):
        return given  # the hub's
    return str((found or folders[0] / path).resolve())


def _found(value: Any, keys: list[str], name: str) -> Iterator[tuple[str, str]]:
    if not keys:
        if isinstance(value, str) and value:
            yield name, value
        return
    key, rest = keys[0], keys[1:]
    if key == "*" and isinstance(value, list):
        for number, item in enumerate(value):
            yield from _found(item, rest, f"{name}.{number}")
    elif isinstance(value, dict) and key in value:
        yield from _found(value[key], rest, f"{name}.{key}" if name else key)

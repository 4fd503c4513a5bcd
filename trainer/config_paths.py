"""Files and folders that a config names: relative ones are meant from the config file's own folder. Never torch.

What is given with ``--set`` is meant from the folder that the command runs in, as with any command. A run's own config
holds full paths, so that it means the same wherever it is gone on with.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from trainer.config import Config
from trainer.hub_names import hub_file

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
_LORAS = ("lora.init_from", "lora.merge_before_training.*.path")
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
        changed = _changed(changed, field.split("."), folders, _of_hub(field))
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


OfHub = Callable[[str], bool]
"""Whether a text that leads to nothing here is a name on the hub."""


def _of_hub(field: str) -> OfHub:
    return _names_model if field in _MODELS else _names_lora if field in _LORAS else _names_nothing


def _names_model(given: str) -> bool:
    return bool(_HUB_ID.fullmatch(given)) and not _FILE.fullmatch(given)


def _names_lora(given: str) -> bool:
    return hub_file(given) is not None


def _names_nothing(given: str) -> bool:
    return False


def put_at(values: dict[str, Any], name: str, value: str) -> None:
    """Set one of the settings that ``paths_in`` tells, by its dotted name."""
    *parents, last = name.split(".")
    place: Any = values
    for key in parents:
        place = place[int(key)] if isinstance(place, list) else place[key]
    place[last] = value


def _changed(value: Any, keys: list[str], folders: tuple[Path, ...], of_hub: OfHub) -> Any:
    if not keys:
        return _full(value, folders, of_hub) if isinstance(value, str) and value else value
    key, rest = keys[0], keys[1:]
    if key == "*" and isinstance(value, list):
        return [_changed(item, rest, folders, of_hub) for item in value]
    if isinstance(value, dict) and key in value:
        return {**value, key: _changed(value[key], rest, folders, of_hub)}
    return value


def _full(given: str, folders: tuple[Path, ...], of_hub: OfHub) -> str:
    if _ADDRESS.match(given) or (of_hub is _names_model and given == "demo"):
        return given
    try:
        path = Path(given).expanduser()
    except RuntimeError:  # ~name of nobody
        return given
    if path.is_absolute():
        return str(path)
    found = next((folder / path for folder in folders if (folder / path).exists()), None)
    if found is None and of_hub(given):
        return given
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

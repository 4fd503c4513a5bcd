"""A run's settings as trackers take them: flat, and without private paths. Never torch."""

from __future__ import annotations

import json
from pathlib import PurePath
from typing import Any

from trainer.config import Config
from trainer.config_paths import paths_in, put_at

Plain = str | int | float | bool | None


def plain_settings(config: Config) -> dict[str, Plain]:
    """Every setting by its dotted name. Of paths the last part only, unless ``tracking.paths`` is set."""
    values = config.model_dump(mode="json")
    if not config.tracking.paths:
        for name, path in list(paths_in(values)):
            put_at(values, name, PurePath(path).name if _is_private(path) else path)
    return dict(_flat(values, ""))


def _is_private(path: str) -> bool:
    return "://" not in path and PurePath(path).is_absolute()


def _flat(value: Any, name: str) -> list[tuple[str, Plain]]:
    if isinstance(value, dict) and (value or not name):
        return [pair for key, each in value.items() for pair in _flat(each, f"{name}.{key}" if name else key)]
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [pair for number, each in enumerate(value) for pair in _flat(each, f"{name}.{number}")]
    return [(name, value if isinstance(value, str | int | float | bool | None) else json.dumps(value))]

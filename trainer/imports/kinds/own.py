"""Our own configs: a file somebody keeps, a preset, or the ``config.yaml`` of a run's folder."""

from __future__ import annotations

from typing import Any

from trainer.config import Config
from trainer.config_io import parse_config
from trainer.imports import values
from trainer.imports.base import ConfigKind, Document, Imported, Line, Report

_LABEL = "LoRA Atelier"


def _recognises(document: Document) -> bool:
    """Anything with one of our sections; an empty file is one without changes."""
    data = document.data
    if document.syntax not in ("yaml", "json") or not isinstance(data, dict):
        return False
    foreign = {"job", "process", "training_method", "LoRA_type", "network_dim", "max_resolution", "base_model_name"}
    return not foreign & set(data)


def _read(document: Document) -> Imported:
    """Exactly what it says: a key that is wrong is told as with any config. Raises UserError."""
    config = parse_config(document.mapping)
    changes = config.model_dump(mode="json", exclude_defaults=True)
    lines = [Line(name, shown, name, shown) for name, shown in _values(changes, "") if name != "version"]
    return Imported(config, Report(_LABEL, mapped=lines))


def _values(data: dict[str, Any], prefix: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for key, value in data.items():
        name = f"{prefix}{key}"
        is_section = prefix == "" and key in Config.model_fields and isinstance(value, dict)
        found += _values(value, f"{name}.") if is_section else [(name, values.shown(name, value))]
    return found


KIND = ConfigKind(label=_LABEL, recognises=_recognises, read=_read)

"""sd-scripts' TOML files: ``--config_file`` (``read_config_from_file``) and ``--dataset_config``.

Sections of a config file are only for the eye: sd-scripts puts all keys into one table.
"""

from __future__ import annotations

from typing import Any

from trainer.errors import UserError
from trainer.imports import values
from trainer.imports.base import ConfigKind, Document, Imported
from trainer.imports.draft import Draft
from trainer.imports.sd_arguments import DEFAULTS, put_arguments
from trainer.imports.sd_datasets import put_datasets
from trainer.imports.sd_network import ARGUMENT

_LABEL = "sd-scripts TOML"
_DATASET_KEYS = ("general", "datasets")


def _recognises(document: Document) -> bool:
    return document.syntax == "toml" and bool(document.data)


def _read(document: Document) -> Imported:
    """The settings of both files, or of a dataset config alone: that says nothing of the rest, which stays as ours."""
    given = without_sections(document.mapping)
    if not given:
        raise UserError("import.empty", "This TOML file holds no settings.", "Choose another file.")
    if set(given) <= set(_DATASET_KEYS):
        draft = Draft(given, {})
        put_datasets(draft, document.companion)
        return draft.finished(f"{_LABEL}, a dataset config")
    draft = Draft(with_network_arguments(given), DEFAULTS)
    put_arguments(draft, document.companion, sdxl=None)
    return draft.finished(_LABEL)


def without_sections(data: dict[str, Any]) -> dict[str, Any]:
    """All keys in one table; those of a dataset config stay as they are."""
    flat: dict[str, Any] = {}
    for key, value in data.items():
        flat |= value if isinstance(value, dict) and key not in _DATASET_KEYS else {key: value}
    return flat


def with_network_arguments(given: dict[str, Any]) -> dict[str, Any]:
    """The keys with each argument of the network as one of its own."""
    network = given.get("network_args")
    named = {} if values.is_blank(network) else values.arguments(network)
    if not named:
        return given
    rest = {key: value for key, value in given.items() if key != "network_args"}
    return rest | {f"{ARGUMENT}{name}": value for name, value in named.items()}


KIND = ConfigKind(label=_LABEL, recognises=_recognises, read=_read)

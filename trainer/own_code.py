"""Models whose settings name code to be run: they are refused, rather than trusted to be ignored by a library.

transformers runs what ``auto_map`` names, and before 5.3 kernels that ``_attn_implementation_internal`` named unasked
(CVE-2026-4372); diffusers runs what ``custom_pipeline`` or a pair in place of a pipeline's class names
(CVE-2026-44513). Never torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trainer.files import json_object

_SETTINGS = ("*config.json", "*model_index.json", "*/*config.json")
"""Not every file: a vocabulary may hold any word."""


def file_with_own_code(folder: Path) -> Path | None:
    """The first settings file of a model folder, or of a part of it, that asks for code to be run; None without."""
    for path in sorted(path for pattern in _SETTINGS for path in folder.glob(pattern)):
        if any(_names_code(name, value) for name, value in _entries(json_object(path))):
            return path
    return None


def _names_code(name: str, value: Any) -> bool:
    if name in ("auto_map", "custom_pipeline", "custom_pipelines"):
        return bool(value)
    if name == "_class_name":
        return not isinstance(value, str)
    return "attn_implementation" in name and isinstance(value, str) and "/" in value  # a repository; "sdpa" is none


def _entries(value: Any) -> Iterator[tuple[str, Any]]:
    """Every name in a JSON value with what belongs to it, however deep."""
    waiting = [value]
    while waiting:
        found = waiting.pop()
        if isinstance(found, dict):
            yield from found.items()
            waiting += found.values()
        elif isinstance(found, list):
            waiting += found

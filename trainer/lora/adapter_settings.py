"""What PEFT and diffusers keep beside a LoRA's tensors: ranks, alphas and names of layers, as JSON.

PEFT writes a folder for each part of a model with ``adapter_model.safetensors`` and ``adapter_config.json``
(``LoraConfig`` of peft); diffusers one file with the same settings for all parts in its metadata, under
``lora_adapter_metadata`` and with ``unet.`` or ``text_encoder.`` in front of each name.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from trainer.errors import UserError
from trainer.lora.keys import PREFIXES
from trainer.lora.layers import Layer

METADATA_KEY = "lora_adapter_metadata"
"""Where diffusers keeps PEFT's settings in a file's metadata."""
TENSORS_NAME, CONFIG_NAME = "adapter_model.safetensors", "adapter_config.json"

_LONGEST_PATTERN, _MOST_QUANTIFIERS, _MOST_WORDS, _MOST_PATTERNS = 300, 2, 32, 5000
_Value = TypeVar("_Value", int, float)


def adapter_files(path: Path) -> list[tuple[Path, str]]:
    """The files to read a LoRA from, each with the part of the model that it is for, "" where its names tell.

    That is the file itself, or for a folder its PEFT adapter or those in its ``unet``, ``text_encoder`` and
    ``text_encoder_2``. Raises UserError for a folder without any.
    """
    if not os.path.isdir(path):  # noqa: PTH112 - Path.is_dir raises for names that none can have
        return [(path, "")]
    whole = path / TENSORS_NAME
    if whole.is_file():
        return [(whole, path.name if path.name in PREFIXES else "")]
    found = [(path / part / TENSORS_NAME, part) for part in PREFIXES if (path / part / TENSORS_NAME).is_file()]
    if not found:
        raise UserError(
            "lora.missing",
            f"{path} is a folder without {TENSORS_NAME}, in itself or in {', '.join(PREFIXES)}.",
            "Choose a .safetensors file, or the folder of a PEFT adapter.",
        )
    return found


@dataclass(frozen=True)
class AdapterSettings:
    """PEFT's settings of one file.

    Attributes:
        path: the file, for messages.
        settings: as read; empty where there are none.
    """

    path: Path
    settings: dict[str, Any]

    @classmethod
    def of(cls, path: Path, metadata: Mapping[str, str]) -> AdapterSettings:
        """The settings in the file's metadata, or beside it. Raises UserError when they are not readable."""
        text = metadata.get(METADATA_KEY)
        beside = path.parent / CONFIG_NAME
        try:
            if text is None:
                text = beside.read_text(encoding="utf-8") if path.stem == "adapter_model" and beside.is_file() else "{}"
            settings = json.loads(text)
        except (OSError, ValueError, RecursionError) as error:
            raise _broken(path, "its adapter settings are not readable JSON") from error
        if not isinstance(settings, dict):
            raise _broken(path, "its adapter settings are not a JSON object")
        return cls(path, settings)

    def alpha(self, dotted: str, rank: int) -> float:
        """Alpha of one layer; its rank where nothing is said. rsLoRA's alpha / sqrt(rank) is folded in."""
        part, _, inner = dotted.partition(".")
        alpha = self._setting(part, "lora_alpha")
        if alpha is None:
            alpha = self._setting(part, "alpha")  # of PEFT's LoHa and LoKr
        patterns = self._setting(part, "alpha_pattern")
        if isinstance(patterns, dict) and len(patterns) > _MOST_PATTERNS:
            raise _broken(self.path, f"its adapter settings have {len(patterns):,} patterns")
        if isinstance(patterns, dict):
            alpha = self._by_pattern(patterns, inner, alpha)
        if alpha is None:
            return float(rank)
        if not isinstance(alpha, int | float) or not math.isfinite(alpha):
            raise _broken(self.path, f"alpha of {dotted} is {alpha!r}")
        return float(alpha) * (math.sqrt(rank) if self._setting(part, "use_rslora") else 1.0)

    @property
    def has_alphas(self) -> bool:
        """Whether any part has an alpha here."""
        return bool(self.anywhere("lora_alpha") or self.anywhere("alpha"))

    @property
    def is_rank_stabilized(self) -> bool:
        """Whether any part divides alpha by the square root of the rank."""
        return True in self.anywhere("use_rslora")

    def anywhere(self, name: str) -> list[Any]:
        """The values that a setting has, of all parts."""
        return [value for key, value in self.settings.items() if key == name or key.endswith(f".{name}")]

    def _setting(self, part: str, name: str) -> Any:
        return self.settings.get(f"{part}.{name}", self.settings.get(name))

    def _by_pattern(self, patterns: dict[str, Any], inner: str, otherwise: Any) -> Any:
        """The value of the first pattern that names the layer; plain names, which most files have, are looked up."""
        for name in (inner, inner.removeprefix("text_model.")):
            for form in (name, f"^{name}", f"^{re.escape(name)}"):
                if form in patterns:
                    return patterns[form]
        return next((value for pattern, value in patterns.items() if _matches(pattern, inner)), otherwise)


def part_settings(layers: Mapping[str, Layer]) -> dict[str, Any]:
    """PEFT's ``LoraConfig`` for the layers of one part, by dotted path: what it needs to build them again."""
    ranks = {_short(path): layer.rank for path, layer in layers.items()}
    alphas = {_short(path): layer.alpha for path, layer in layers.items()}
    rank, alpha = _most_common(ranks), _most_common(alphas)
    return {
        "r": rank,
        "lora_alpha": alpha,
        "rank_pattern": {path: value for path, value in ranks.items() if value != rank},
        "alpha_pattern": {path: value for path, value in alphas.items() if value != alpha},
        "target_modules": sorted(ranks),
        "use_dora": any(layer.magnitude is not None for layer in layers.values()),
    }


def adapter_config(layers: Mapping[str, Layer]) -> dict[str, Any]:
    """What ``adapter_config.json`` holds for the layers of one part, by dotted path."""
    return {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": None,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_dropout": 0.0,
        "modules_to_save": None,
        "use_rslora": False,
        **part_settings(layers),
    }


def _short(path: str) -> str:
    """A path as old and new models have it: newer ones of CLIP have no ``text_model`` level. PEFT matches path ends."""
    return path.removeprefix("text_model.")


def _most_common(values: Mapping[str, _Value]) -> _Value:
    return Counter(values.values()).most_common(1)[0][0]


def _matches(pattern: str, inner: str) -> bool:
    """Whether PEFT's pattern (a regular expression for the end of the name, from a dot on) names this layer."""
    if inner == pattern or inner.endswith(f".{pattern}"):
        return True
    if re.fullmatch(r"[\w.]+", pattern) and "." in pattern:
        return False  # a dotted name of another layer: no need of the slow way, for hundreds of them
    # a hostile expression could run for hours; PEFT itself writes plain names
    if len(pattern) > _LONGEST_PATTERN or "(" in pattern or len(re.findall(r"[*+{?]", pattern)) > _MOST_QUANTIFIERS:
        return False
    words = inner.split(".")
    if len(words) > _MOST_WORDS:
        return False
    try:
        expression = re.compile(pattern)
    except (re.error, OverflowError):
        return False
    return any(expression.fullmatch(".".join(words[place:])) for place in range(len(words)))


def _broken(path: Path, what: str) -> UserError:
    return UserError("lora.broken", f"{path.name} is not a usable LoRA: {what}.", "Get the file again from its source.")

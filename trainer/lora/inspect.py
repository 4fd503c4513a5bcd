"""What is in a LoRA file: family, kind, ranks, strength by block, what lower ranks would keep, faults, trigger words.

Read from the header and then one layer at a time, so that a large file takes no more memory than its largest layer, and
a broken layer does not hide the others.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from trainer.errors import UserError
from trainer.lora.adapter_settings import adapter_files
from trainer.lora.file import LoraFile
from trainer.lora.hashes import file_hashes
from trainer.lora.keys import block_of, part_of
from trainer.lora.layer_reader import Contents, FoundLayer, LayerReader
from trainer.lora.layers import Layer, LoraLayer
from trainer.lora.module_paths import module_path
from trainer.lora.readable import readable_rows
from trainer.lora.spectrum import Spectrum, spectrum
from trainer.lora.told_family import told_family
from trainer.lora.triggers import find_triggers, tag_counts
from trainer.runs.events import EventSink

_UNKNOWN = "unknown"
_STRANGE_FAMILIES = {
    "flux": re.compile(r"double_blocks|single_transformer_blocks|single_blocks"),
    "sd3": re.compile(r"joint_blocks|transformer_blocks_\d+_attn_add|context_block"),
}
_LARGE_CONV_NAME = re.compile(r"_(conv[12]?|in_layers_2|out_layers_3|op)$")
_PRECISIONS = {"F16": "fp16", "BF16": "bf16"}
_SHARES = (0.9, 0.95, 0.99)
_SHOWN_TAGS = 10


def inspect_lora(path: Path, *, layers: bool = False, events: EventSink | None = None) -> dict[str, Any]:
    """Everything worth telling about a LoRA file or PEFT folder, as plain values; the keys are those of ``inspect``.

    ``layers`` adds a row for each layer. Raises UserError when it is no safetensors file, or no LoRA.
    """
    with LayerReader(path) as reader:
        contents = reader.contents
        if not contents.keys and not contents.other_kinds and not any("lora" in name for name in contents.names):
            hint = "Choose a LoRA .safetensors file."
            raise UserError("lora.none", f"{path.name} holds no LoRA layers of Stable Diffusion.", hint)
        summary = _Summary()
        for number, found in enumerate(reader.layers()):
            if events is not None and number % 20 == 0:
                events.emit("progress", what="reading", done=number, total=len(contents.keys))
            summary.add(found)
    files = [file for file, _ in adapter_files(path)]
    metadata = contents.metadata
    hashes = file_hashes(files[0], metadata) if len(files) == 1 else None
    return {
        "what": "lora",
        "file": path.name,
        "size_bytes": sum(file.stat().st_size for file in files),
        "family": _family(contents),
        "naming": contents.naming,
        "precision": _precision(contents.formats),
        "formats": contents.formats,
        **summary.counts(contents.keys),
        "norm": summary.norm,
        "blocks": summary.block_rows(),
        "energy": summary.energy(),
        "trigger": metadata.get("modelspec.trigger_phrase"),
        "triggers": [asdict(trigger) for trigger in find_triggers(metadata)],
        "frequent_tags": frequent_tags(metadata),
        "warnings": _warnings(contents, summary, hashes),
        "zero_layers": summary.zeros,
        "broken_layers": summary.faults,
        "unknown_keys": contents.unknown,
        "other_kinds": contents.other_kinds,
        "hashes": hashes,
        "about": readable_rows(metadata),
        "metadata": dict(sorted(metadata.items())),
        **({"layers": summary.rows} if layers else {}),
    }


def family_of(lora: LoraFile) -> str:
    """The model family: as the file says, else by the width of the text that its layers read; or ``unknown``."""
    widths = {layer.weight_shape[1] for module, layer in lora.layers.items() if module.endswith("attn2_to_k")}
    return told_family(lora.metadata, lora.layers, widths) or _UNKNOWN


def _family(contents: Contents) -> str:
    known = told_family(contents.metadata, contents.keys, contents.text_widths)
    if known:
        return known
    names = " ".join(contents.names)
    return next((family for family, pattern in _STRANGE_FAMILIES.items() if pattern.search(names)), _UNKNOWN)


def delta_norm(layer: Layer) -> float:
    """Frobenius norm of the layer's change; of a DoRA's without its magnitude, which needs the model's weights."""
    return spectrum(layer).norm


def block_norms(lora: LoraFile) -> list[dict[str, Any]]:
    """For each block its number of layers and the norm of their changes together, in the model's order."""
    summary = _Summary()
    for key, layer in lora.layers.items():
        summary.add(FoundLayer(key, layer))
    return summary.block_rows()


def frequent_tags(metadata: Mapping[str, str]) -> list[str]:
    """The tags most often trained on, where the file tells (``ss_tag_frequency``): a trigger word is among them."""
    counts: Counter[str] = Counter()
    for tags in tag_counts(metadata).values():
        counts.update(tags)
    return [tag for tag, _ in counts.most_common(_SHOWN_TAGS)]


@dataclass
class _Summary:
    """What is gathered while the layers go by."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    spectra: list[Spectrum] = field(default_factory=list)
    zeros: list[str] = field(default_factory=list)
    faults: dict[str, str] = field(default_factory=dict)
    convolutions: int = 0

    def add(self, found: FoundLayer) -> None:
        layer = found.layer
        if layer is None:
            self.faults[found.key] = found.fault
            return
        size = spectrum(layer)
        self.spectra.append(size)
        self.convolutions += _is_large_conv(found.key, layer)
        if not size.norm:
            self.zeros.append(found.key)
        place = module_path(found.key)
        self.rows.append(
            {
                "layer": found.key,
                "path": ".".join(place) if place else None,
                "part": part_of(found.key) or "other",
                "block": block_of(found.key),
                "kind": layer.name,
                "rank": layer.rank,
                "alpha": layer.alpha,
                "shape": list(layer.weight_shape),
                "norm": size.norm,
                "rank_for_90": size.rank_for(0.9),
                "rank_for_99": size.rank_for(0.99),
            }
        )

    @property
    def norm(self) -> float:
        return math.sqrt(sum(size.norm**2 for size in self.spectra))

    def counts(self, keys: list[str]) -> dict[str, Any]:
        return {
            "modules": len(keys),
            "parts": dict(sorted(Counter(part_of(key) or "other" for key in keys).items())),
            "kinds": dict(sorted(Counter(row["kind"] for row in self.rows).items())),
            "convolutions": self.convolutions,
            "ranks": _counts([row["rank"] for row in self.rows]),
            "alphas": _counts([row["alpha"] for row in self.rows]),
        }

    def block_rows(self) -> list[dict[str, Any]]:
        """By block in the model's order: layers, norm of their changes together, its share of the whole's square."""
        squares: dict[str, list[float]] = {}
        for row in self.rows:
            squares.setdefault(row["block"], []).append(row["norm"] ** 2)
        whole = self.norm**2
        return [
            {
                "block": block,
                "layers": len(values),
                "norm": math.sqrt(sum(values)),
                "share": sum(values) / whole if whole else 0.0,
            }
            for block, values in sorted(squares.items(), key=lambda item: _block_order(item[0]))
        ]

    def energy(self) -> dict[str, Any] | None:
        """What is kept of the squared norm, of all layers together, when each is cut to a lower rank."""
        squares = [size.squares for size in self.spectra if size.squares is not None and size.norm]
        if not squares:
            return None
        whole = sum(float(values.sum()) for values in squares)
        largest = max(len(values) for values in squares)
        ranks = [*(2**power for power in range(largest.bit_length()) if 2**power < largest), largest]
        kept = [sum(float(values[:rank].sum()) for values in squares) / whole for rank in ranks]
        return {
            "layers": len(squares),
            "kept": [{"rank": rank, "energy": min(1.0, share)} for rank, share in zip(ranks, kept, strict=True)],
            "needed": [self._needed(share) for share in _SHARES],
        }

    def _needed(self, share: float) -> dict[str, Any]:
        ranks = sorted(rank for size in self.spectra if (rank := size.rank_for(share)) is not None)
        return {"energy": share, "median_rank": ranks[len(ranks) // 2], "largest_rank": ranks[-1]}


def _warnings(contents: Contents, summary: _Summary, hashes: dict[str, Any] | None) -> list[dict[str, str]]:
    """What is not as it should be, as ``{"code", "message", "hint"}``."""
    told: list[tuple[str, str, str]] = []
    if summary.faults:
        key, fault = next(iter(summary.faults.items()))
        message = f"{len(summary.faults)} layers are broken, such as {key}: it {fault}."
        told.append(("layers.broken", message, "Get the file again, or an earlier checkpoint."))
    if contents.doubled:
        message = f"{len(contents.doubled)} layers are there twice, such as {contents.doubled[0]}."
        told.append(("layers.doubled", message, "The file was put together wrongly: get it from its source."))
    for kind, count in contents.other_kinds.items():
        message = f"{count} tensors are of the kind {kind}, which this program does not read."
        told.append(("kind.other", message, "Convert it with the tool that made it."))
    if summary.zeros:
        message = f"{len(summary.zeros)} of {len(contents.keys)} layers change nothing: they are zero."
        told.append(("layers.zero", message, "They were not trained, or had no gradient."))
    if contents.unknown:
        message = f"{len(contents.unknown)} tensors are not understood, such as {contents.unknown[0]}."
        told.append(("keys.unknown", message, "They have no effect here."))
    for name in ("sshs_model_hash", "sshs_legacy_hash"):
        if hashes and hashes[name]["right"] is False:
            message = f"{name} in the metadata is not this file's."
            told.append((f"hash.{name}", message, "The tensors were changed after it was written, or renamed."))
    return [{"code": code, "message": message, "hint": hint} for code, message, hint in told]


def _is_large_conv(module: str, layer: Layer) -> bool:
    """By the kernel; a LoHa or LoKr of factors does not tell it, and is known by its name."""
    if len(layer.weight_shape) == 2:
        return not isinstance(layer, LoraLayer) and _LARGE_CONV_NAME.search(module) is not None
    return layer.weight_shape[2:] != (1, 1)


def _precision(formats: Mapping[str, int]) -> str:
    """The number format that holds every value: ``fp16``, ``bf16`` or ``float``."""
    return _PRECISIONS.get(next(iter(formats)), "float") if len(formats) == 1 else "float"


def _counts(values: list[Any]) -> dict[str, int]:
    return {f"{value:g}": count for value, count in sorted(Counter(values).items())}


def _block_order(block: str) -> tuple[str, int, int, str]:
    """Down, middle, up; numbers as numbers."""
    part, _, name = block.partition(" ")
    stages = ("rest", "down", "input", "mid", "up", "output")
    stage = next((place for place, start in enumerate(stages) if name.startswith(start)), 0)
    number = name.rpartition("_")[2]
    return part, stage, int(number) if number.isdigit() else 0, name

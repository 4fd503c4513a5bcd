"""The parts and blocks that a LoRA file has, as a tree to set strengths by. No gradio in here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from trainer.lora.strengths import names_of
from ui.lora_tools.plans import contents_of

_LABELS = {
    "text_encoder": "Text encoder",
    "text_encoder_2": "Second text encoder",
    "unet": "Image model (UNet)",
    "down_blocks": "Down blocks",
    "mid_block": "Middle block",
    "up_blocks": "Up blocks",
    "input_blocks": "Input blocks (down)",
    "middle_block": "Middle block",
    "output_blocks": "Output blocks (up)",
}
_NUMBERED = {
    "layers": "Layer",
    "down_blocks": "Down",
    "up_blocks": "Up",
    "input_blocks": "In",
    "output_blocks": "Out",
}
_ONLY = {
    "unet": "Image model only",
    "text_encoder": "Text encoder only",
    "unet.down_blocks": "Down blocks only",
    "unet.input_blocks": "Input blocks only",
    "unet.mid_block": "Middle block only",
    "unet.middle_block": "Middle block only",
    "unet.up_blocks": "Up blocks only",
    "unet.output_blocks": "Output blocks only",
    "unet.output_blocks.0": "Content of an SDXL picture (B-LoRA)",
    "unet.output_blocks.1": "Style of an SDXL picture (B-LoRA)",
}
"""Presets that leave one place as strong as the whole and end all others.

Which blocks of SDXL hold content and style: Frenkel et al., "Implicit Style-Content Separation using B-LoRA" (2024),
arXiv 2403.14572, section 4; there they are called up_blocks.0.attentions.0 and 1. Only SDXL files have output blocks.
"""


@dataclass(frozen=True)
class Place:
    """A part or block that a strength can be given to, and what lies inside it. ``name``: as ``strengths.py`` reads."""

    name: str
    label: str
    inside: list[Place] = field(default_factory=list)


def blocks_of(path: Path) -> dict[str, Any]:
    """``places``, the tree, and ``presets``, each a label and the names that are set to 0. Raises UserError."""
    places = places_of(contents_of(path).layers)
    presets = [{"label": label, "ended": list(ended(places, name))} for name, label in _ONLY.items()]
    known = {name for place in places for name in _names(place)}
    offered = [preset for preset, name in zip(presets, _ONLY, strict=True) if name in known and preset["ended"]]
    return {"places": [asdict(place) for place in places], "presets": offered}


def places_of(modules: Sequence[str] | dict[str, Any]) -> list[Place]:
    """The tree of the places that layers, by kohya key, lie in: parts, groups of blocks, blocks."""
    parts: dict[str, Place] = {}
    for name in names_of(modules):
        part, _, block = name.partition(".")
        top = parts.setdefault(part, Place(part, _LABELS[part]))
        if block:
            _add(top, *block.split("."))
    return [parts[part] for part in _LABELS if part in parts]


def ended(places: Sequence[Place], kept: str) -> Iterator[str]:
    """The fewest names that hold all places but ``kept``, what is inside it, and what it is inside of."""
    for place in places:
        if kept == place.name:
            continue
        if kept.startswith(f"{place.name}."):
            yield from ended(place.inside, kept)
        else:
            yield place.name


def _add(part: Place, group: str, number: str = "") -> None:
    """Put a block where it belongs: one of the UNet into its group, a text encoder's layer into the encoder itself."""
    name = f"{part.name}.{group}"
    outer = part
    if group in _LABELS:
        outer = next((place for place in part.inside if place.name == name), Place(name, _LABELS[group]))
        if outer not in part.inside:
            part.inside.append(outer)
    if number:
        outer.inside.append(Place(f"{name}.{number}", f"{_NUMBERED[group]} {number}"))


def _names(place: Place) -> Iterator[str]:
    yield place.name
    for inner in place.inside:
        yield from _names(inner)

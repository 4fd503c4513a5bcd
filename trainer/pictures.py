"""Pictures that know how they were made: settings in, and read back from, a PNG's text chunks.

Two chunks are written: ``lora_atelier`` (our JSON, complete) and ``parameters`` (the text that A1111, Forge, ComfyUI
nodes and picture sites read). What comes back from a file is somebody else's text: it is bounded and validated.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo
from pydantic import Field, ValidationError, field_validator

from trainer.config import CaptionLength, Prompt, Section
from trainer.config_io import problems_of
from trainer.errors import UserError
from trainer.files import atomic_path
from trainer.lora.strengths import Strength, parse_strength

OUR_CHUNK = "lora_atelier"
A1111_CHUNK = "parameters"
_VERSION = "LoRA Atelier"
LONGEST_TEXT = 100_000
"""Characters of settings text that are looked at; real ones have a few hundred."""

SAMPLER_NAMES: dict[str, str] = {
    "ddim": "DDIM",
    "euler": "Euler",
    "euler_a": "Euler a",
    "dpmpp_2m": "DPM++ 2M",
    "dpmpp_2m_karras": "DPM++ 2M Karras",
    "unipc": "UniPC",
    "ddpm": "DDPM",
}
"""What people call our samplers, as A1111 spells them."""


class LoraUse(Section):
    """One LoRA file and how strongly it is applied."""

    path: str = Field(min_length=1)
    """The LoRA file."""
    weight: float = Field(1.0, ge=-100, le=100)
    """1 is full strength; negative turns it around."""
    parts: str = Field(default="", max_length=2000)
    """Other strengths for parts and blocks: `text_encoder:0,unet.mid_block:1.2`."""

    @field_validator("parts")
    @classmethod
    def _parts_are_named(cls, parts: str) -> str:
        try:
            parse_strength(f"1,{parts}" if parts.strip() else "1", "it")
        except UserError as error:
            raise ValueError(str(error)) from error
        return parts.strip()

    @property
    def strength(self) -> Strength:
        """Weight and parts together."""
        return parse_strength(f"{self.weight!r},{self.parts}" if self.parts else repr(self.weight))


class PictureSettings(Prompt):
    """All that decides what a picture looks like. Width and height empty: the model's own size."""

    model: str = Field("demo", min_length=1)
    """`demo`, a .safetensors or .ckpt file, a folder in diffusers layout, or a Hugging Face id."""
    loras: list[LoraUse] = Field(default=[], max_length=16)
    """LoRAs to use, together."""
    clip_skip: int = Field(1, ge=1, le=12)
    """1 uses the text encoder's last layer, 2 the one before it."""
    max_token_length: CaptionLength = 75
    """75, 150 or 225 tokens are read of a prompt; more than 75 are read in chunks of 75."""
    weighted: bool = False
    """Read `(word:1.3)`, `(word)` and `[word]` as emphasis."""
    count: int = Field(1, ge=1, le=100)
    """Pictures to make; each next one has the next seed."""


def parse_settings(values: dict[str, Any]) -> PictureSettings:
    """Validate plain values. Raises UserError with one problem per wrong value."""
    try:
        return PictureSettings.model_validate(values)
    except ValidationError as error:
        raise UserError.many(problems_of(error, values)) from error


def save_png(image: Image.Image, path: Path, settings: dict[str, Any]) -> None:
    """Write a PNG atomically, with its settings inside. Keys beyond those of PictureSettings are kept in our chunk."""
    chunks = PngInfo()
    chunks.add_text(OUR_CHUNK, json.dumps(settings))
    chunks.add_text(A1111_CHUNK, a1111_text(settings))
    with atomic_path(path) as temporary:
        image.save(temporary, format="PNG", pnginfo=chunks)


def read_settings(path: Path) -> dict[str, Any]:
    """The settings in a picture, as far as they are valid PictureSettings values; ours first, A1111's text otherwise.

    Raises UserError when the file is not a picture or carries no settings.
    """
    chunks = _text_chunks(path)
    settings = _known(_our_settings(chunks.get(OUR_CHUNK, ""))) or _known(parse_a1111(chunks.get(A1111_CHUNK, "")))
    if not settings:
        raise UserError(
            "picture.no_settings",
            f"{path.name} carries no settings.",
            "Use a PNG straight from this program, A1111 or Forge; other programs often remove them.",
        )
    return settings


def a1111_text(settings: dict[str, Any]) -> str:
    """A1111's "parameters" text: prompt with ``<lora:name:weight>``, negative prompt, then one line of values."""
    uses = [f"<lora:{Path(use['path']).stem}:{use['weight']:g}>" for use in settings.get("loras") or []]
    lines = [" ".join(part for part in [str(settings.get("prompt") or ""), *uses] if part)]
    if settings.get("negative"):
        lines.append(f"Negative prompt: {settings['negative']}")
    lines.append(", ".join(f"{name}: {value}" for name, value in _a1111_values(settings)))
    text = "\n".join(lines)
    return "".join(c for c in text if c in "\n\t" or c >= " ").encode("utf-8", "replace").decode("utf-8")


def parse_a1111(text: str) -> dict[str, Any]:
    """Read A1111's "parameters" text into our names. Unknown values are left out; text of another kind gives {}."""
    body, _, last = text.strip()[:LONGEST_TEXT].rpartition("\n")
    values = dict(re.findall(r'([A-Z][\w +/-]{0,40}): ?("[^"]*"|[^,]*)(?:, |,|$)', last[:10_000]))
    if "Steps" not in values:
        return {}
    prompt, _, negative = f"\n{body}".partition("\nNegative prompt:")
    settings: dict[str, Any] = {
        "prompt": re.sub(r"\s*<lora:[^<>]{0,300}>", "", prompt).strip(),
        "negative": negative.strip(),
        "steps": _number(values.get("Steps"), int),
        "guidance": _number(values.get("CFG scale"), float),
        "seed": _number(values.get("Seed"), int),
        "clip_skip": _number(values.get("Clip skip"), int),
        "sampler": _our_sampler(values.get("Sampler", ""), values.get("Schedule type", "")),
    }
    if values.get("Version") != _VERSION and re.search(r"[(\[]", body):
        settings["weighted"] = True  # as A1111 itself has read it
    width, _, height = values.get("Size", "").partition("x")
    settings |= {"width": _number(width, int), "height": _number(height, int)}
    return {name: value for name, value in settings.items() if value is not None}


def _a1111_values(settings: dict[str, Any]) -> list[tuple[str, Any]]:
    given = [
        ("Steps", settings.get("steps")),
        ("Sampler", SAMPLER_NAMES.get(str(settings.get("sampler")))),
        ("CFG scale", settings.get("guidance")),
        ("Seed", settings.get("seed")),
        ("Size", f"{settings['width']}x{settings['height']}" if settings.get("width") else None),
        ("Model", Path(str(settings["model"])).name if settings.get("model") else None),
        ("Clip skip", settings.get("clip_skip") if settings.get("clip_skip") not in (None, 1) else None),
        ("Version", _VERSION),
    ]
    return [(name, value) for name, value in given if value is not None]


def _text_chunks(path: Path) -> dict[str, str]:
    """The text chunks of a picture. Pillow itself bounds what compressed chunks may unpack to."""
    try:
        with Image.open(path) as image:
            return {str(key): str(value) for key, value in image.info.items() if isinstance(value, str)}
    except (OSError, UnidentifiedImageError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(
            "picture.unreadable", f"{path.name} cannot be read as a picture.", "Choose a PNG file."
        ) from error


def _our_settings(text: str) -> dict[str, Any]:
    if not text or len(text) > LONGEST_TEXT:
        return {}
    try:
        settings = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return settings if isinstance(settings, dict) else {}


def _known(settings: dict[str, Any]) -> dict[str, Any]:
    """Only the entries that PictureSettings knows and accepts."""
    known: dict[str, Any] = {}
    for name in PictureSettings.model_fields:
        if settings.get(name) is None:
            continue
        try:
            checked = PictureSettings.model_validate({name: settings[name]})
        except ValidationError:
            continue
        known[name] = checked.model_dump()[name]
    return known


def _our_sampler(name: str, schedule: str) -> str | None:
    wanted = f"{name} {schedule}".strip() if schedule == "Karras" else name
    names = {shown.lower(): ours for ours, shown in SAMPLER_NAMES.items()}
    return names.get(wanted.lower(), names.get(name.lower()))


def _number(text: str | None, kind: type[int] | type[float]) -> int | float | None:
    try:
        return kind(text) if text else None
    except ValueError:
        return None

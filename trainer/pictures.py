"""Pictures that know how they were made: settings in, and read back from, a PNG's text chunks.

Two chunks are written: ``lora_atelier`` (our JSON, complete) and ``parameters`` (``infotext.py``, which other programs
read). JPEG and WebP files of others have the latter in EXIF. What comes back from a file is somebody else's text: it is
bounded and validated.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo
from pydantic import Field, ValidationError, ValidationInfo, field_validator

from trainer.config import CaptionLength, Prompt, Section
from trainer.config_io import problems_of
from trainer.data.image_files import open_picture
from trainer.errors import UserError
from trainer.files import atomic_path
from trainer.infotext import LONGEST_TEXT, Infotext, read_infotext, write_infotext
from trainer.lora.strengths import Strength, parse_strength
from trainer.versions import PICTURE

OUR_CHUNK = "lora_atelier"
LARGEST_SIDE_PX = 4096
"""Nothing larger is drawn, or kept to start from."""
A1111_CHUNK = "parameters"
_EXIF_IFD, _USER_COMMENT = 0x8769, 0x9286
"""Where the Exif standard (2.32, section 4.6.5) keeps a comment: eight bytes of encoding, then the text."""


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
    batch_size: int = Field(1, ge=1, le=16)
    """Pictures drawn at once: faster on a GPU, for more memory. They may differ by rounding from ones drawn alone."""
    tiled_decoding: bool = False
    """Decode large pictures in overlapping tiles: less memory, a slightly other picture. Done unasked where needed."""

    init_image: str | None = None
    """A picture to start from. Width and height empty: its shape, in the model's size."""
    strength: float = Field(0.75, ge=0, le=1)
    """How much of the picture to start from is drawn anew: 0 leaves it as it is, 1 uses nothing of it."""
    fit: Literal["crop", "resize", "pad"] = "crop"
    """How the picture to start from gets the size: what is too much cut off, stretched, or its edges continued."""
    mask: str | None = None
    """A picture as large as the one to start from: white is drawn anew, black is kept."""
    mask_blur: int = Field(4, ge=0, le=64)
    """Pixels over which the mask's border is softened."""
    inpaint_area: Literal["whole", "masked"] = "whole"
    """Draw the whole picture, or the masked part alone at full size: more detail, and the picture keeps its size."""
    mask_padding: int = Field(32, ge=0, le=512)
    """Pixels around the masked part that are looked at, when it is drawn alone."""

    hires_scale: float = Field(1.0, ge=1, le=4)
    """How much larger the picture is drawn in a second pass; 1 for none."""
    hires_steps: int = Field(0, ge=0, le=1000)
    """Denoising steps of the second pass; 0 for as many as in the first."""
    hires_strength: float = Field(0.5, ge=0, le=1)
    """How much of the first pass is drawn anew in the second."""
    hires_upscaler: Literal["latent", "lanczos"] = "latent"
    """Enlarge what the model works in (needs a strength of 0.5 or more), or the pixels."""

    @field_validator("mask")
    @classmethod
    def _mask_of_a_picture(cls, mask: str | None, info: ValidationInfo) -> str | None:
        if mask and not info.data.get("init_image"):
            raise ValueError("belongs to a picture to start from; give init_image too, or no mask")
        return mask or None

    @field_validator("init_image")
    @classmethod
    def _none_is_none(cls, init_image: str | None) -> str | None:
        return init_image or None

    @field_validator("hires_scale")
    @classmethod
    def _second_pass_fits(cls, scale: float, info: ValidationInfo) -> float:
        if scale > 1 and info.data.get("init_image"):
            raise ValueError(
                "a second pass follows a picture that is drawn from its prompt alone; use 1 with init_image"
            )
        side = max(info.data.get("width") or 0, info.data.get("height") or 0)
        if side * scale > LARGEST_SIDE_PX:
            most = LARGEST_SIDE_PX / side
            raise ValueError(f"{scale:g} times {side} is more than {LARGEST_SIDE_PX} pixels; use {most:.2g} or less")
        return scale

    def enlarged(self, size: tuple[int, int]) -> tuple[int, int]:
        """Width and height in pixels after the second pass, which starts from ``size``: multiples of 8."""
        width, height = (round(side * self.hires_scale / 8) * 8 for side in size)
        return width, height


def parse_settings(values: dict[str, Any]) -> PictureSettings:
    """Validate plain values. Raises UserError with one problem per wrong value."""
    try:
        return PictureSettings.model_validate(values)
    except ValidationError as error:
        raise UserError.many(problems_of(error, values)) from error


def save_png(image: Image.Image, path: Path, settings: dict[str, Any]) -> None:
    """Write a PNG atomically, with its settings inside. Keys beyond those of PictureSettings are kept in our chunk."""
    chunks = PngInfo()
    chunks.add_text(OUR_CHUNK, json.dumps({"version": PICTURE.version, **settings}))
    chunks.add_text(A1111_CHUNK, write_infotext(settings))
    with atomic_path(path) as temporary:
        image.save(temporary, format="PNG", pnginfo=chunks)


def read_picture(path: Path) -> Infotext:
    """Our settings in a picture, else those of another program; here only valid PictureSettings values are among them.

    Ours name LoRAs and model among the settings, by their files.

    Raises UserError when the file is not a picture, carries no settings, or those of a newer program.
    """
    texts = _texts(path)
    ours = _known(PICTURE.read(_our_settings(texts.get(OUR_CHUNK, ""))))
    if ours:
        return Infotext(ours)
    read = read_infotext(texts.get(A1111_CHUNK, ""))
    settings = _known(read.settings)
    if not settings:
        raise UserError(
            "picture.no_settings",
            f"{path.name} carries no settings.",
            "Use a picture straight from this program, A1111, Forge or Civitai; other programs often remove them.",
        )
    return replace(read, settings=settings)


def read_settings(path: Path) -> dict[str, Any]:
    """The settings in a picture that PictureSettings knows. Raises UserError like ``read_picture``."""
    return read_picture(path).settings


def _texts(path: Path) -> dict[str, str]:
    """The text chunks of a PNG, or the EXIF comment. Pillow itself bounds what compressed chunks may unpack to."""
    try:
        with open_picture(path) as image:
            texts = {str(key): str(value) for key, value in image.info.items() if isinstance(value, str)}
            if A1111_CHUNK not in texts:
                texts[A1111_CHUNK] = _comment(image.getexif().get_ifd(_EXIF_IFD).get(_USER_COMMENT))
    except (OSError, UnidentifiedImageError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        message = f"{path.name} cannot be read as a picture."
        raise UserError("picture.unreadable", message, "Choose a PNG, JPEG or WebP file.") from error
    return texts


def _comment(value: object) -> str:
    """The text of an EXIF comment. Its UTF-16 has either order of bytes: most programs write the big end first."""
    if isinstance(value, str):
        return value
    if not isinstance(value, bytes):
        return ""
    encoding, text = value[:8], value[8 : 8 + 2 * LONGEST_TEXT]
    if encoding != b"UNICODE\0":
        return text.decode("utf-8", "replace")
    return max((text.decode(order, "replace") for order in ("utf-16-be", "utf-16-le")), key=_ascii_share)


def _ascii_share(text: str) -> float:
    return sum(character < "\x7f" for character in text) / max(1, len(text))


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
            checked = PictureSettings.model_validate({**known, name: settings[name]})
        except ValidationError:
            continue
        known |= checked.model_dump(include=checked.model_fields_set)
    return known

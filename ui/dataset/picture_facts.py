"""What the editor asks about one picture: how it would be trained, how its caption is stored, its mask, tokens.

These are questions that change nothing. The browser names folder and picture, so both are checked each time.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

from trainer.config import DatasetSettings
from trainer.config_dataset import CaptionLength
from trainer.curation import mask_files
from trainer.curation.crops import read_crops
from trainer.data.buckets import Placement, Resolution, place, resolutions
from trainer.data.caption_files import ENCODINGS, read_caption_file
from trainer.data.image_files import PICTURE_ERRORS, read_size
from trainer.data.picture_notes import about_tokens
from trainer.data.token_count import TokenCount, TokenCounter, clip_counter, model_counter
from trainer.demo import MODEL_DIR
from trainer.errors import UserError
from ui.dataset.desk import DatasetDesk
from ui.dataset.train_form import dataset_settings, model_settings
from ui.messages import as_text

LIMITS: tuple[int, ...] = get_args(CaptionLength)
USUAL_RESOLUTIONS: tuple[Resolution, ...] = ((512, 512), (768, 768), (1024, 1024))
MAX_TEXT = 100_000

Question = Callable[[Any], dict[str, Any]]


def questions(desk: DatasetDesk) -> list[Question]:
    """The functions that the grid's scripts may call; each answers ``{"problem": text}`` when it cannot."""

    def picture_facts(asked: Any) -> dict[str, Any]:
        return _answer(lambda: facts(desk, _texts(asked, "folder", "name")))

    def mask_pixels(asked: Any) -> dict[str, Any]:
        return _answer(lambda: mask(desk, _texts(asked, "folder", "name", "origin")))

    def count_tokens(asked: Any) -> dict[str, Any]:
        return _answer(lambda: tokens(desk, _texts(asked, "text")["text"]))

    return [picture_facts, mask_pixels, count_tokens]


def facts(desk: DatasetDesk, asked: dict[str, str]) -> dict[str, Any]:
    """Placements, caption encoding, crop box and masks of a picture. Raises UserError when it is not in the folder."""
    folder = desk.folder(asked)
    entry = desk.entry(folder, asked["name"])
    stored = read_caption_file(entry.own.file)
    try:
        width, height = read_size(entry.path)
    except PICTURE_ERRORS:
        width = height = 0
    mask = mask_files.origin_file(folder, entry.name, "mask")
    crop = read_crops(desk.workspace, folder).get(entry.name)
    side = desk.memory.resolution
    return {
        "name": entry.name,
        "encoding": ENCODINGS[stored.encoding] if stored and stored.encoding != "utf-8" else "",
        "placements": placements(dataset_settings(desk.context), width, height, side) if width else [],
        "crop": [crop.left, crop.top, crop.right, crop.bottom] if crop else None,
        "size": mask_files.painted_size(width, height) if width else None,
        "origins": list(mask_files.origins(folder, entry.name)),
        "mask": mask.stat().st_mtime_ns if mask.is_file() else 0,
    }


def mask(desk: DatasetDesk, asked: dict[str, str]) -> dict[str, Any]:
    """A mask as a data URL: white, with the mask as its alpha channel. Raises UserError when there is none."""
    folder = desk.folder(asked)
    entry = desk.entry(folder, asked["name"])
    origin = next((each for each in mask_files.ORIGINS if each == asked["origin"]), None)
    if origin is None:
        raise UserError("mask.origin", f"{asked['origin']!r} is not a kind of mask.", "Reload the page.")
    desk.context.allowed(mask_files.origin_file(folder, entry.name, origin))
    grey = mask_files.read_mask(folder, entry.name, origin, mask_files.PAINTED_PX)
    white = grey.point([255] * 256)
    white.putalpha(grey)
    out = io.BytesIO()
    white.save(out, "PNG", compress_level=1)
    return {"url": "data:image/png;base64," + base64.b64encode(out.getvalue()).decode("ascii")}


def placements(settings: DatasetSettings, width: int, height: int, side: int) -> list[dict[str, Any]]:
    """How a picture of this size comes into its bucket, with the Train form's bucket settings.

    At the tab's own resolution of ``side`` pixels, at those of the form, and at the usual ones.
    """
    own = list(dict.fromkeys([(side, side), *resolutions(settings)]))
    several = [*own, *(usual for usual in USUAL_RESOLUTIONS if usual not in own)]
    return [
        _told(place(width, height, settings, each), each, width, own=number < len(own))
        for number, each in enumerate(several)
    ]


def _told(placed: Placement, resolution: Resolution, width: int, *, own: bool) -> dict[str, Any]:
    return {
        "resolution": f"{resolution[0]}" if resolution[0] == resolution[1] else "{} × {}".format(*resolution),
        "own": own,
        "width": placed.width,
        "height": placed.height,
        "box": [
            placed.crop_left / placed.scaled_width,
            placed.crop_top / placed.scaled_height,
            (placed.crop_left + placed.width) / placed.scaled_width,
            (placed.crop_top + placed.height) / placed.scaled_height,
        ],
        "cut": placed.cropped_share,
        "scale": placed.scaled_width / width,
    }


def tokens(desk: DatasetDesk, text: str) -> dict[str, Any]:
    """Tokens of each line, and the first character that each of LIMITS cuts off, as the form's model counts them."""
    counter = _counter(desk)
    lines = text[:MAX_TEXT].split("\n")
    captions = dataset_settings(desk.context).captions
    counts = [counter.count(line, LIMITS) if counter else TokenCount(about_tokens(line), ()) for line in lines]
    return {
        "whose": counter.whose if counter else "",
        "limits": LIMITS,
        "limit": captions.max_token_length,
        "first_only": not captions.wildcards,
        "lines": [{"tokens": count.tokens, "cuts": count.cuts} for count in counts],
    }


def _counter(desk: DatasetDesk) -> TokenCounter | None:
    """That of the form's model; CLIP's where it has none of its own on this machine; None where it cannot be read."""
    base = model_settings(desk.context).base
    folder = (MODEL_DIR if base == "demo" else Path(base).expanduser()) / "tokenizer"
    if not folder.is_dir():
        return clip_counter()
    try:
        allowed = folder if base == "demo" else desk.context.allowed(folder)
        return model_counter(allowed, "the demo model" if base == "demo" else folder.parent.name)
    except (OSError, ValueError, UserError):
        return None


def _texts(asked: Any, *names: str) -> dict[str, str]:
    """The texts that were sent. Raises UserError when one is missing."""
    if not isinstance(asked, dict) or not all(isinstance(asked.get(name), str) for name in names):
        raise UserError("dataset.event", "The page and the program do not fit together.", "Reload the page.")
    return {name: asked[name] for name in names}


def _answer(question: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return question()
    except UserError as error:
        return {"problem": as_text(error)}

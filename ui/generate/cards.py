"""How the page's scripts are told of pictures: addresses, words and settings as text. No gradio in here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trainer.pictures import PictureSettings
from trainer.runs.store import Workspace
from trainer.sampler_names import SAMPLER_NAMES, SCHEDULE_NAMES
from ui.generate.album import Album, Picture
from ui.media import picture_url

_TITLES = {
    "prompt": "Prompt",
    "negative": "Not in the picture",
    "model": "Model",
    "loras": "LoRAs",
    "seed": "Seed",
    "steps": "Steps",
    "guidance": "Guidance",
    "sampler": "Sampler",
    "schedule": "Schedule",
}
"""Always told, in this order; other settings follow where they are not as by default."""


def cards(album: Album, workspace: Workspace, pictures: Sequence[Picture]) -> list[dict[str, Any]]:
    """One record per picture; texts in it come from files and are never HTML."""
    stars = album.starred(pictures)
    return [_card(workspace, album.dir / picture.name, picture, picture.name in stars) for picture in pictures]


def facts(settings: dict[str, Any]) -> list[tuple[str, str]]:
    """Settings as names and values to read."""
    rows = [(title, _told(name, settings[name])) for name, title in _TITLES.items() if settings.get(name)]
    if settings.get("width") and settings.get("height"):
        rows.append(("Size", f"{settings['width']} × {settings['height']}"))
    known = {*_TITLES, "width", "height", "count"}
    for name, field in PictureSettings.model_fields.items():
        if name not in known and name in settings and settings[name] != field.default:
            rows.append((name.replace("_", " ").capitalize(), _told(name, settings[name])))
    return rows


def _card(workspace: Workspace, path: Path, picture: Picture, starred: bool) -> dict[str, Any]:
    settings = picture.settings
    return {
        "name": picture.name,
        "url": picture_url(workspace, path),
        "small": picture_url(workspace, path, thumbnail=True),
        "words": settings.get("prompt") or picture.name,
        "star": starred,
        "seed": str(settings.get("seed", "")),  # a number of more than 53 bits would be rounded
        "facts": facts(settings),
    }


def _told(name: str, value: Any) -> str:
    if name == "loras":
        return ", ".join(_lora(use) for use in value)
    if name == "sampler":
        return SAMPLER_NAMES.get(value, str(value))
    if name == "schedule":
        return SCHEDULE_NAMES.get(value, str(value))
    if name in ("model", "init_image", "mask"):
        return Path(str(value)).name
    return "yes" if value is True else f"{value:g}" if isinstance(value, float) else str(value)


def _lora(use: dict[str, Any]) -> str:
    parts = f" ({use['parts']})" if use.get("parts") else ""
    return f"{Path(use['path']).stem} × {use['weight']:g}{parts}"

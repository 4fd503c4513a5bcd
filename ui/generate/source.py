"""The picture to start from, what of it is drawn anew, and the second, larger pass: one component, drawn by scripts."""

from __future__ import annotations

import base64
import io
import json
import secrets
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.utils import get_upload_folder
from PIL import Image

from trainer.curation.mask_files import painted_mask, painted_size
from trainer.data.image_files import PICTURE_ERRORS, open_picture
from trainer.errors import UserError
from trainer.inputs import hidden_part, keep_input, read_input
from trainer.pictures import PictureSettings
from ui.context import AppContext
from ui.dataset.board import sent
from ui.messages import tells_problems
from ui.scripted import scripted
from ui.wiring import TELLING

SOURCE_FIELDS = (
    "init_image",
    "strength",
    "fit",
    "mask",
    "mask_blur",
    "inpaint_area",
    "mask_padding",
    "hires_scale",
    "hires_steps",
    "hires_strength",
    "hires_upscaler",
)
"""The settings, by their names in PictureSettings, that the component holds."""
SOURCE_DEFAULTS = {name: PictureSettings.model_fields[name].default for name in SOURCE_FIELDS}
_SHOWN_PX = 1024


class SourcePanel:
    """Two folds: start from a picture, and a second pass.

    Attributes:
        panel: its value tells the settings as JSON text, from the program to the page and back.
    """

    def __init__(self, context: AppContext) -> None:
        self._context = context
        self.panel = scripted(
            "generate-source",
            css=("paint/paint", "generate/source"),
            js=("dataset/dom", "paint/paint", "generate/source_mask", "generate/source"),
            value=self.shown(SOURCE_DEFAULTS),
            asks=[self._asked()],
        )
        self.panel.given(self._given, self.panel, self.panel, **TELLING)
        self.panel.painted(self._painted, self.panel, self.panel, **TELLING)

    def read(self, value: Any) -> dict[str, Any]:
        """The settings in the component's value; pictures are checked. Raises UserError for one that is not there."""
        settings = _settings(value)
        for name in ("init_image", "mask"):
            if settings.get(name):
                settings[name] = str(self._file(str(settings[name]), name))
        return settings

    def shown(self, settings: dict[str, Any]) -> dict[str, Any]:
        """A value of the component that shows settings."""
        return {"settings": json.dumps(settings), "shown": secrets.token_hex(4)}  # told from what the page itself set

    def start_from(self, settings: dict[str, Any], picture: Image.Image) -> dict[str, Any]:
        """Settings that start from a picture; its transparent part, where it has one, is to be drawn anew."""
        workspace = self._context.workspace
        hidden = hidden_part(picture)
        return {
            **settings,
            "init_image": str(keep_input(workspace, picture)),
            "mask": None if hidden is None else str(keep_input(workspace, hidden)),
            "hires_scale": 1.0,
        }

    def _asked(self) -> Any:
        def source_pixels(asked: Any) -> dict[str, Any]:
            """A picture to start from, or a mask: as a data URL, with the size in which masks for it are painted."""
            try:
                field, path = (str(asked[name]) for name in ("field", "path"))
                return _pixels(self._file(path, field), field)
            except (UserError, KeyError, TypeError) as error:
                return {"problem": str(error)}

        return source_pixels

    @tells_problems
    def _given(self, value: Any, event: gr.EventData) -> dict[str, Any]:
        """A picture was dropped or chosen to start from."""
        return self.shown(self.start_from(_settings(value), opened(sent(event, "path")["path"])))

    @tells_problems
    def _painted(self, value: Any, event: gr.EventData) -> dict[str, Any]:
        settings = _settings(value)
        start = read_input(self._file(str(settings.get("init_image") or ""), "init_image"), "init_image")
        mask = painted_mask(str(sent(event, "png")["png"]), *start.size)
        return self.shown({**settings, "mask": str(keep_input(self._context.workspace, mask))})

    def _file(self, path: str, field: str) -> Path:
        found = self._context.allowed(path)
        if not found.is_file():
            message = f"{field}: the picture {path} is not there any more."
            raise UserError("picture.missing", message, "Choose another one, or remove it.", field)
        return found


def opened(path: Any) -> Image.Image:
    """A picture that the browser uploaded. Raises UserError for anything else."""
    place = Path(str(path)).resolve()
    if not place.is_relative_to(Path(get_upload_folder()).resolve()):
        raise UserError("upload.unknown", "A file that was not uploaded is named.", "Reload the page.")
    try:
        return open_picture(io.BytesIO(place.read_bytes()))
    except PICTURE_ERRORS as error:
        message = "The file cannot be read as a picture."
        raise UserError("picture.unreadable", message, "Choose a PNG, JPEG or WebP file.", "init_image") from error


def _settings(value: Any) -> dict[str, Any]:
    """The component's settings, those of ``SOURCE_FIELDS`` alone; what they are worth is checked with the others."""
    try:
        settings = json.loads(value["settings"])
    except (KeyError, TypeError, ValueError):
        return dict(SOURCE_DEFAULTS)
    known = settings if isinstance(settings, dict) else {}
    return {name: known.get(name, default) for name, default in SOURCE_DEFAULTS.items()}


def _pixels(path: Path, field: str) -> dict[str, Any]:
    picture = read_input(path, field)
    width, height = picture.size
    if field == "mask":
        white = picture.point([255] * 256)
        white.putalpha(picture)
        picture = white
    else:
        picture.thumbnail((_SHOWN_PX, _SHOWN_PX))
    out = io.BytesIO()
    picture.save(out, "PNG" if field == "mask" else "WEBP", quality=88)
    kind = "png" if field == "mask" else "webp"
    url = f"data:image/{kind};base64,{base64.b64encode(out.getvalue()).decode('ascii')}"
    return {"url": url, "width": width, "height": height, "painted": painted_size(width, height)}

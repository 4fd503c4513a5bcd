"""What happens on the Generate tab: asking for pictures, and settings from pictures back into the form."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from trainer.data.image_files import open_picture
from trainer.errors import UserError
from trainer.infotext import Infotext
from trainer.pictures import PictureSettings, parse_settings, read_picture
from ui.context import AppContext
from ui.dataset.board import sent
from ui.generate.album import Album
from ui.generate.desk import GenerateDesk, LastUse
from ui.generate.form import Form
from ui.generate.source import SOURCE_DEFAULTS, SOURCE_FIELDS, opened
from ui.lora_choices import RowUse, check_loras, check_model, named_loras, named_model
from ui.lora_rows import ROWS
from ui.messages import tells_problems, warn

LARGER = 2.0
"""How much larger "Draw larger" makes a picture."""


class GenerateHandlers:
    """Each takes the form's values or an event, and answers the form as text (``LastUse``) or as updates."""

    def __init__(self, context: AppContext, form: Form, desk: GenerateDesk, album: Album) -> None:
        self._context = context
        self._form = form
        self._desk = desk
        self._album = album

    @tells_problems
    def generate(self, *values: Any) -> str:
        """Ask for pictures; returns the seed that is used."""
        settings, new_seed = self._read(values)
        if not settings.prompt.strip():
            raise UserError("generate.prompt", "The prompt is empty.", "Say what to draw.", "prompt")
        return str(self._desk.ask(settings, new_seed=new_seed).seed)

    def read(self, values: Sequence[Any]) -> PictureSettings:
        """The settings that the form's values make. Raises UserError with everything that is wrong."""
        return self._read(values)[0]

    def _read(self, values: Sequence[Any]) -> tuple[PictureSettings, bool]:
        given, rows, new_seed = self._form.read(values)
        given["model"] = check_model(self._context, given.get("model", ""))
        given["loras"] = [use.model_dump() for use in check_loras(self._context, rows)]
        return parse_settings(given), new_seed

    def show_last(self) -> list[Any]:
        """The form as it was last used."""
        return self._form.show(self._desk.last())

    def show_found(self, found: str) -> list[Any]:
        """The form as another handler answered it."""
        return self._form.show(LastUse.model_validate_json(found))

    @tells_problems
    def pick(self, event: gr.EventData) -> str:
        """A picture of the wall is wanted: its settings, or a picture like it, larger, or begun with it."""
        asked = sent(event, "name", "how")
        picture = self._album.picture(str(asked["name"]))
        settings = parse_settings(picture.settings)
        if asked["how"] == "source":
            with open_picture(self._album.dir / picture.name) as image:
                source = self._form.source.start_from(settings.model_dump(include=set(SOURCE_FIELDS)), image)
            settings = settings.model_copy(update={**source, "width": None, "height": None})
        elif asked["how"] in ("vary", "larger"):
            settings = self._ask_again(settings, larger=asked["how"] == "larger")
        return LastUse(settings=settings, new_seed=asked["how"] in ("vary", "source")).model_dump_json()

    @tells_problems
    def open_picture(self, event: gr.EventData) -> str:
        """The settings found in a picture that was dropped on the tab."""
        path = Path(str(sent(event, "path")["path"]))
        opened(path).close()
        found = read_picture(path)
        settings = self._completed(found)
        if len(settings.loras) > ROWS:
            warn(f"The form has room for {ROWS} LoRAs; the others are left out.")
        return LastUse(settings=settings, new_seed="seed" not in found.settings).model_dump_json()

    @tells_problems
    def use_lora(self, lora: Path, model: str, settings: PictureSettings | None) -> list[Any]:
        """The form for a LoRA file that was trained on ``model``."""
        chosen = settings or self._desk.last().settings
        chosen = chosen.model_copy(update={"model": model, "loras": []})
        return self._form.show(LastUse(settings=chosen, new_seed=True), [RowUse(str(lora), 1.0)])

    def _ask_again(self, settings: PictureSettings, *, larger: bool) -> PictureSettings:
        changes: dict[str, Any] = {"model": check_model(self._context, settings.model)}
        rows = [RowUse(use.path, use.weight, use.parts) for use in settings.loras]
        changes["loras"] = [use.model_dump() for use in check_loras(self._context, rows)]
        if larger and settings.init_image:
            message = "This picture began with another one: a second pass follows pictures drawn from a prompt alone."
            raise UserError("generate.larger", message, "Start from it instead, with a larger size.", "hires_scale")
        if larger:
            changes["hires_scale"] = LARGER
        return self._desk.ask(parse_settings(settings.model_dump() | changes), new_seed=not larger)

    def _completed(self, found: Infotext) -> PictureSettings:
        """What a picture does not say stays as it was last used; it began with no other picture it does not name."""
        workspace = self._context.workspace
        loras, missing = named_loras(workspace, found.loras)
        model = named_model(workspace, found.model)
        named = {"loras": [use.model_dump() for use in loras], **({"model": model} if model else {})}
        last = self._desk.last().settings.model_dump() | {"schedule": "model"}  # it may not go with their sampler
        settings = parse_settings(last | SOURCE_DEFAULTS | named | found.settings)
        missing += [found.model] if found.model and not model else []
        for words, left_out in (("Not on this machine", missing), ("Not used here", found.unused)):
            if left_out:
                warn(f"{words}: {'; '.join(left_out)}")
        return settings

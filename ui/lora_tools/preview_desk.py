"""The Merge tool's previews: asking the studio for them, and how they stand. No gradio in here."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from trainer.errors import UserError
from trainer.pictures import LoraUse, PictureSettings, parse_settings
from trainer.studio import Answer, Studio
from ui.context import AppContext
from ui.lora_choices import RowUse, check_loras, check_model
from ui.lora_tools.merge_orders import Merge
from ui.lora_tools.saved_preview import SavedPreview
from ui.media import live_url, picture_url

LONGEST_WAIT_S = 1.0
"""How long a question is held back while there is nothing new: fewer of them, and news that come at once."""
LOOK_EVERY_S = 0.03


class PreviewDesk:
    """Takes the positions of the sliders and says what has become of the newest."""

    def __init__(self, context: AppContext, studio: Studio) -> None:
        self._context = context
        self._studio = studio
        self._saved = SavedPreview(context.workspace)
        context.page.route("/atelier/merge/previews/{request}", self._standing)

    def ask(self, uses: Sequence[RowUse], look: dict[str, Any], prompts: Sequence[str]) -> dict[str, Any]:
        """Ask for pictures without and with these LoRAs in place of all asked for before.

        Returns ``request``, its id, and ``sum``, the LoRAs in words; nothing where no LoRA is chosen. Raises UserError.
        """
        if not uses:
            return {}
        settings = self._settings(uses, look, prompts)
        return {"request": self._preview(settings, prompts), "sum": sum_in_words(settings.loras)}

    def ask_as_saved(self, merge: Merge, look: dict[str, Any], prompts: Sequence[str]) -> dict[str, Any]:
        """The same with what Save would write in place of the LoRAs.

        Returns ``preparing`` while that is being computed: to be asked again in a moment.
        """
        merged = self._saved.lora(merge)
        if merged is None:
            return {"preparing": True}
        settings = self._settings([RowUse(str(merged), 1.0)], look, prompts)
        words = f"{sum_in_words(merge.loras)}, as saved ({merge.mode})"
        return {"request": self._preview(settings, prompts), "sum": words}

    def _preview(self, settings: PictureSettings, prompts: Sequence[str]) -> str:
        return self._studio.preview(settings, prompts=prompts[1:], compare=True)

    def _settings(self, uses: Sequence[RowUse], look: dict[str, Any], prompts: Sequence[str]) -> PictureSettings:
        values = {
            **look,
            "prompt": prompts[0] if prompts else "",
            "model": check_model(self._context, look["model"]),
            "loras": [use.model_dump() for use in check_loras(self._context, uses)],
        }
        return parse_settings(values)

    def standing(self, request: str) -> dict[str, Any]:
        """How a request stands: state, what goes on in words, the share done, where the pictures and the live one are.

        ``version`` changes with the rest. Raises UserError for an id that is none.
        """
        answer, workspace = self._studio.answer(request), self._context.workspace
        return {
            "version": f"{answer.state} {answer.what} {answer.step} {len(answer.pictures)}",
            "state": answer.state,
            "final": answer.final,
            "words": _doing(answer),
            "share": answer.step / answer.steps if answer.steps else 0.0,
            "pictures": [picture_url(workspace, Path(path)) for path in answer.pictures],
            "notes": answer.notes,
            "live": live_url(Path(answer.live)) if answer.live else "",
            "problems": [f"{each['message']} {each['hint']}".strip() for each in answer.error],
        }

    def _standing(self, request: Request) -> Response:
        seen, end = request.query_params.get("seen"), time.monotonic() + LONGEST_WAIT_S
        try:
            while (standing := self.standing(request.path_params["request"]))["version"] == seen:
                if time.monotonic() > end:
                    break
                time.sleep(LOOK_EVERY_S)
        except UserError as error:
            raise HTTPException(404) from error
        return JSONResponse(standing, headers={"cache-control": "no-store"})


def sum_in_words(loras: Sequence[LoraUse]) -> str:
    """``neon × 0.8 + robot × -0.3 (text_encoder:0)``."""
    return " + ".join(_use_in_words(use) for use in loras)


def _use_in_words(use: LoraUse) -> str:
    by_part = f" ({use.parts})" if use.parts else ""
    return f"{Path(use.path).stem} × {use.weight:g}{by_part}"


def _doing(answer: Answer) -> str:
    if answer.state == "waiting":
        return "Starting the picture process for"
    return "Loading the model for" if answer.what.startswith("loading") else "Drawing"

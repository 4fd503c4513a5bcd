"""Help beside fields: the words that call the chosen LoRAs up, and the sizes that the model draws well."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gradio as gr

from trainer.errors import UserError
from trainer.lora.triggers import find_triggers, tag_counts
from trainer.single_file.header import read_header
from ui.context import AppContext
from ui.generate.native_size import native_side
from ui.lora_choices import check_lora, check_model
from ui.scripted import scripted
from ui.wiring import LAST_COUNTS, QUIET

MOST_TAGS = 24
_SURE = 0.3
"""Triggers that are less likely are no better than tags."""


class WordHints:
    """Trigger words and frequent tags of the chosen LoRAs, each a button that puts it into the prompt."""

    def __init__(self, context: AppContext) -> None:
        self._context = context
        self._panel = scripted("generate-words", css=("generate/hints",), js=("dataset/dom", "generate/words"))

    def follow(self, files: list[gr.Dropdown]) -> None:
        """Show the words of the LoRAs that these fields name, whoever fills them."""
        gr.on([file.change for file in files], self._shown, files, self._panel, **QUIET, **LAST_COUNTS)

    def _shown(self, *files: Any) -> dict[str, str]:
        chosen = dict.fromkeys(str(file) for file in files if file)
        loras = [{"name": Path(file).stem, **self._words(file)} for file in chosen]
        return {"loras": json.dumps([lora for lora in loras if lora["words"] or lora["tags"]])}

    def _words(self, file: str) -> dict[str, Any]:
        try:
            return words_of(check_lora(self._context, file))
        except (UserError, OSError):
            return {"words": [], "tags": []}  # a wrong file is told of when it is used


class SizeHints:
    """Buttons for the shapes of pictures, in the number of pixels that the model was trained on."""

    def __init__(self, context: AppContext) -> None:
        self._context = context
        self._panel = scripted(
            "generate-size", css=("generate/hints",), js=("dataset/dom", "generate/size"), value=self._size("demo")
        )

    def follow(self, model: gr.Dropdown) -> None:
        """Show the sizes of the model that this field names, whoever fills it."""
        model.change(self._size, model, self._panel, **QUIET, **LAST_COUNTS)

    def _size(self, model: str | None) -> dict[str, Any]:
        try:
            return {"side": native_side(check_model(self._context, model or "demo"))}
        except UserError:
            return {"side": None}


def words_of(path: Path) -> dict[str, Any]:
    """The likely trigger words of a LoRA file, each with the reason, and its most frequent tags with their counts.

    Raises UserError when it is no such file.
    """
    metadata = read_header(path, field="lora").metadata
    words = [(each.word, "; ".join(each.reasons)) for each in find_triggers(metadata) if each.score >= _SURE]
    known = {word.lower() for word, _ in words}
    tags: dict[str, int] = {}
    for counts in tag_counts(metadata).values():
        for tag, count in counts.items():
            tags[tag] = tags.get(tag, 0) + count
    frequent = sorted(tags.items(), key=lambda each: (-each[1], each[0]))
    return {"words": words, "tags": [each for each in frequent if each[0].lower() not in known][:MOST_TAGS]}

"""Captioners without a model: the file's name, or one text for all pictures."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from trainer.captioners.base import Captioner, CaptionerKind, CaptionerOptions
from trainer.errors import UserError

_NUMBER_AT_THE_END = re.compile(r"[\s(]*\d+\)?$")
_BETWEEN_WORDS = re.compile(r"[_\s]+|-+")


class FileName:
    """``golden_retriever-012.jpg`` becomes "golden retriever"."""

    def caption(self, image: Image.Image, path: Path) -> str:
        words = _BETWEEN_WORDS.sub(" ", path.stem).strip()
        return _NUMBER_AT_THE_END.sub("", words) or words


@dataclass(frozen=True)
class FixedText:
    """The same words for each picture, as for a class prompt."""

    text: str

    def caption(self, image: Image.Image, path: Path) -> str:
        return self.text


def load_file_name(options: CaptionerOptions) -> Captioner:
    """The captioner that reads file names."""
    return FileName()


def load_fixed_text(options: CaptionerOptions) -> Captioner:
    """The captioner that repeats the prompt. Raises UserError when there is none."""
    if not (options.prompt or "").strip():
        raise UserError("caption.no_text", "No text is given.", "Fill in the text for all pictures.", "prompt")
    return FixedText(str(options.prompt).strip())


FILE_NAME = CaptionerKind(
    label="File names",
    about="Uses each picture's file name as its caption, numbers at the end left out. Needs no model.",
    load=load_file_name,
)
FIXED_TEXT = CaptionerKind(
    label="The same text for all",
    about="Gives every picture the text below. Needs no model.",
    load=load_fixed_text,
    prompt="The text",
)

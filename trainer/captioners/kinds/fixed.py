"""One text for all pictures, as for a class prompt; needs no model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from trainer.captioners.base import Captioner, CaptionerKind, CaptionerOptions
from trainer.config_base import setting
from trainer.errors import UserError


class FixedOptions(CaptionerOptions):
    """The text."""

    prompt: str = setting("", "The text", basic=True)
    """What every picture's caption says."""


@dataclass(frozen=True)
class FixedText:
    """The same words for each picture."""

    text: str

    def captions(self, images: Sequence[Image.Image], paths: Sequence[Path]) -> list[str]:
        return [self.text for _ in paths]


def load(options: FixedOptions) -> Captioner:
    """The captioner that repeats the text. Raises UserError when there is none."""
    text = options.prompt.strip()
    if not text:
        raise UserError("caption.no_text", "No text is given.", "Fill in the text for all pictures.", "prompt")
    return FixedText(text)


KIND = CaptionerKind(
    label="The same text for all",
    about="Gives every picture the text below. Needs no model.",
    style="text",
    options=FixedOptions,
    load=load,
    runtime="none",
)

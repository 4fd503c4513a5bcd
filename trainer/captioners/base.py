"""What a captioner is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from PIL import Image


class Captioner(Protocol):
    """Describes pictures, one at a time."""

    def caption(self, image: Image.Image, path: Path) -> str:
        """The caption of an upright RGB picture that lies at ``path``."""


@dataclass(frozen=True)
class CaptionerOptions:
    """What the user asks of a captioner.

    Attributes:
        model: folder or Hugging Face id of the weights; None for the captioner's own choice.
        prompt: text given to the captioner; what it means is the captioner's own.
    """

    model: str | None = None
    prompt: str | None = None


@dataclass(frozen=True)
class CaptionerKind:
    """An entry of the list of captioners.

    Attributes:
        label: name on the page.
        about: one sentence on what it does.
        load: makes the captioner ready. Imports what is heavy itself. Raises UserError.
        model: Hugging Face id taken when no model is given; empty for captioners without weights.
        prompt: what the prompt means to it; empty where it has none.
    """

    label: str
    about: str
    load: Callable[[CaptionerOptions], Captioner]
    model: str = ""
    prompt: str = ""

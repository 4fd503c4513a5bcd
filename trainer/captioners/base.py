"""What a captioner is: one file in ``kinds/`` with a ``KIND``, its options as a model, and a class that captions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from PIL import Image

from trainer.config_base import Section, setting
from trainer.config_io import parse_section

Style = Literal["tags", "prose", "text"]
"""What captions look like: tags between commas, sentences, or words without a model's look at the picture."""


Runtime = Literal["none", "onnx", "torch"]
"""What computes: onnxruntime and torch take a GPU where they can."""


class Captioner(Protocol):
    """Describes pictures, some at a time."""

    def captions(self, images: Sequence[Image.Image], paths: Sequence[Path]) -> list[str]:
        """One caption for each upright RGB picture; ``paths`` says where they lie."""


class CaptionerOptions(Section):
    """What the user can choose; captioners add fields. Labels and docstrings of fields are what the page shows."""

    batch_size: int = setting(1, "Pictures at a time", ge=1, le=64)
    """More are faster on a GPU, and need more of its memory."""


@dataclass(frozen=True)
class CaptionerKind:
    """An entry of the list of captioners.

    Attributes:
        label: name on the page.
        about: one sentence on what it does and what it needs.
        style: what its captions look like.
        options: the model of its options, each with a default.
        load: makes the captioner ready for options of that model. Imports what is heavy itself. Raises UserError.
        runtime: what it computes with.
    """

    label: str
    about: str
    style: Style
    options: type[CaptionerOptions]
    load: Callable[[Any], Captioner]
    runtime: Runtime = "torch"

    def parse(self, values: Mapping[str, Any]) -> CaptionerOptions:
        """Options of plain values, the rest as by default. Raises UserError with one problem per wrong field."""
        return parse_section(self.options, dict(values))

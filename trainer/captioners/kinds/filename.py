"""Captions from file names; needs no model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from trainer.captioners.base import Captioner, CaptionerKind, CaptionerOptions

_NUMBER_AT_THE_END = re.compile(r"[\s(]*\d+\)?$")
_BETWEEN_WORDS = re.compile(r"[_\s]+|-+")


class FileName:
    """``golden_retriever-012.jpg`` becomes "golden retriever"."""

    def captions(self, images: Sequence[Image.Image], paths: Sequence[Path]) -> list[str]:
        return [_words_of(path.stem) for path in paths]


def _words_of(stem: str) -> str:
    words = _BETWEEN_WORDS.sub(" ", stem).strip()
    return _NUMBER_AT_THE_END.sub("", words) or words


def load(options: CaptionerOptions) -> Captioner:
    """The captioner that reads file names."""
    return FileName()


KIND = CaptionerKind(
    label="File names",
    about="Uses each picture's file name as its caption, numbers at the end left out. Needs no model.",
    style="text",
    options=CaptionerOptions,
    load=load,
    runtime="none",
)

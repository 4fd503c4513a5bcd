"""Florence-2 (Xiao et al. 2023, arXiv:2311.06242): quick, sober descriptions of three lengths.

The weights of florence-community are those that transformers reads by itself; Microsoft's own ask for code to be run.
"""

from __future__ import annotations

from typing import Literal

from trainer.captioners.base import Captioner, CaptionerKind
from trainer.captioners.options import WriterOptions
from trainer.captioners.writer import load_writer
from trainer.config_base import setting

Detail = Literal["short", "detailed", "more detailed"]

TASKS: dict[Detail, str] = {
    "short": "<CAPTION>",
    "detailed": "<DETAILED_CAPTION>",
    "more detailed": "<MORE_DETAILED_CAPTION>",
}
"""The model's own words for its tasks."""


class Florence2Options(WriterOptions):
    """Which weights, and how much they tell."""

    model: str = setting("florence-community/Florence-2-large", "Model", basic=True, min_length=1)
    """Folder or Hugging Face id of the weights; about 1.6 GB, florence-community/Florence-2-base 0.5 GB."""
    detail: Detail = setting("detailed", "How much is told", basic=True)
    """One sentence, some sentences, or a paragraph."""
    max_new_tokens: int = setting(256, "Longest caption in tokens", ge=1, le=1024)
    """A token is a short word or a part of a long one; what goes on longer is cut off."""


def load(options: Florence2Options) -> Captioner:
    """Load Florence-2 on the GPU where there is one. Raises UserError when the weights are missing or broken."""
    return load_writer(options, "florence2", "Florence2ForConditionalGeneration", TASKS[options.detail])


KIND = CaptionerKind(
    label="Florence-2",
    about="Sober descriptions in one sentence up to a paragraph. Quick; about 1.6 GB, a CPU is enough.",
    style="prose",
    options=Florence2Options,
    load=load,
)

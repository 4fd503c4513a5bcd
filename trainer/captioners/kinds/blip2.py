"""BLIP-2 (Li et al. 2023, arXiv:2301.12597): short sentences, surer than BLIP's; answers questions, too."""

from __future__ import annotations

from trainer.captioners.base import Captioner, CaptionerKind
from trainer.captioners.options import WriterOptions
from trainer.captioners.writer import load_writer
from trainer.config_base import setting


class Blip2Options(WriterOptions):
    """Which weights, how captions begin, and how long they get."""

    model: str = setting("Salesforce/blip2-opt-2.7b", "Model", basic=True, min_length=1)
    """Folder or Hugging Face id of the weights; about 15 GB to download, 8 GB of memory on a GPU."""
    prompt: str = setting("", "How captions begin", basic=True)
    """Such as "a photo of", or a question: "Question: what is the person wearing? Answer:"."""
    max_new_tokens: int = setting(50, "Longest caption in tokens", ge=1, le=512)
    """A token is a short word or a part of a long one; what goes on longer is cut off."""


def load(options: Blip2Options) -> Captioner:
    """Load BLIP-2 on the GPU where there is one. Raises UserError when the weights are missing or broken."""
    return load_writer(options, "blip-2", "Blip2ForConditionalGeneration", options.prompt)


KIND = CaptionerKind(
    label="BLIP-2",
    about="Short sentences, more reliable than BLIP's. About 15 GB to download; wants a GPU with 8 GB.",
    style="prose",
    options=Blip2Options,
    load=load,
)

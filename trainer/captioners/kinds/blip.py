"""BLIP (Li et al. 2022, arXiv:2201.12086): short sentences such as "a dog on a beach"; small enough for a CPU."""

from __future__ import annotations

from trainer.captioners.base import Captioner, CaptionerKind
from trainer.captioners.options import WriterOptions
from trainer.captioners.writer import load_writer
from trainer.config_base import setting


class BlipOptions(WriterOptions):
    """Which weights, how captions begin, and how long they get."""

    model: str = setting("Salesforce/blip-image-captioning-base", "Model", basic=True, min_length=1)
    """Folder or Hugging Face id of the weights; about 1 GB."""
    prompt: str = setting("", "How captions begin", basic=True)
    """Such as "a photo of"; the model goes on from there."""
    max_new_tokens: int = setting(40, "Longest caption in tokens", ge=1, le=512)
    """A token is a short word or a part of a long one; what goes on longer is cut off."""


def load(options: BlipOptions) -> Captioner:
    """Load BLIP on the GPU where there is one. Raises UserError when the weights are missing or broken."""
    return load_writer(options, "blip", "BlipForConditionalGeneration", options.prompt)


KIND = CaptionerKind(
    label="BLIP",
    about="Describes each picture in one short sentence. The model is about 1 GB; a CPU is enough.",
    style="prose",
    options=BlipOptions,
    load=load,
)

"""Google's models that chat about pictures: Gemma 3 (arXiv:2503.19786) from 4B on, Gemma 4."""

from __future__ import annotations

from trainer.captioners.base import Captioner, CaptionerKind
from trainer.captioners.vision_language import ChatOptions, load_chat
from trainer.config_base import setting


class GemmaOptions(ChatOptions):
    """What is asked, and how freely it is answered."""

    model: str = setting("google/gemma-3-4b-it", "Model", basic=True, min_length=1)
    """Folder or Hugging Face id of the weights; about 9 GB. Google's terms must be accepted on its page first."""


def load(options: GemmaOptions) -> Captioner:
    """Load the model on the GPU where there is one. Raises UserError when the weights are missing or broken."""
    return load_chat(options, ("gemma3", "gemma4"))


KIND = CaptionerKind(
    label="Gemma",
    about="Does what the prompt says, in careful prose. About 9 GB; wants a GPU, and Google's terms accepted.",
    style="prose",
    options=GemmaOptions,
    load=load,
)

"""SmolVLM (Marafioti et al. 2025, arXiv:2504.05299): the smallest models that chat about pictures."""

from __future__ import annotations

from trainer.captioners.base import Captioner, CaptionerKind
from trainer.captioners.vision_language import ChatOptions, load_chat
from trainer.config_base import setting


class SmolVlmOptions(ChatOptions):
    """What is asked, and how freely it is answered."""

    model: str = setting("HuggingFaceTB/SmolVLM-500M-Instruct", "Model", basic=True, min_length=1)
    """Folder or Hugging Face id of the weights: about 1 GB, HuggingFaceTB/SmolVLM2-2.2B-Instruct 4.5 GB."""


def load(options: SmolVlmOptions) -> Captioner:
    """Load the model on the GPU where there is one. Raises UserError when the weights are missing or broken."""
    return load_chat(options, ("idefics3", "smolvlm"))


KIND = CaptionerKind(
    label="SmolVLM",
    about="Does roughly what the prompt says. About 1 GB: slow on a CPU, but possible.",
    style="prose",
    options=SmolVlmOptions,
    load=load,
)

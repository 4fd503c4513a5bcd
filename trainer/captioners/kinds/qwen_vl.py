"""Qwen's models that chat about pictures: Qwen2-VL, Qwen2.5-VL (arXiv:2502.13923), Qwen3-VL, Qwen3.5."""

from __future__ import annotations

from trainer.captioners.base import Captioner, CaptionerKind
from trainer.captioners.vision_language import ChatOptions, load_chat
from trainer.config_base import setting

MODEL_TYPES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe")


class QwenVlOptions(ChatOptions):
    """What is asked, and how freely it is answered."""

    model: str = setting("Qwen/Qwen3-VL-4B-Instruct", "Model", basic=True, min_length=1)
    """Folder or Hugging Face id of the weights: about 9 GB, Qwen/Qwen3-VL-2B-Instruct 4.5 GB,
    Qwen/Qwen3-VL-8B-Instruct 18 GB."""


def load(options: QwenVlOptions) -> Captioner:
    """Load the model on the GPU where there is one. Raises UserError when the weights are missing or broken."""
    return load_chat(options, MODEL_TYPES)


KIND = CaptionerKind(
    label="Qwen-VL",
    about="Does what the prompt says: prose of any length, tags, in many languages. About 9 GB; wants a GPU.",
    style="prose",
    options=QwenVlOptions,
    load=load,
)

"""Differential output preservation: what the model made of the plain class word before, it goes on making.

Each caption is read once more with the trigger word replaced by the class word, and the prediction with the LoRA is
held to the prediction without it (as ai-toolkit): "a photo of sks" may change, "a photo of dog" may not. Unlike prior
preservation it needs no pictures of the class.
"""

from __future__ import annotations

import re

import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.conditioning import CaptionEncoder
from trainer.config import Config
from trainer.families.base import Family
from trainer.lora.adapter import without_adapters


def plain_caption(caption: str, trigger: str, class_word: str) -> str:
    """The caption with the class word in place of the trigger, whatever its case; without one, the class word alone.

    A caption without the trigger, such as one that was dropped out, must not be held back from being learned.
    """
    plain, replaced = re.subn(rf"(?<!\w){re.escape(trigger)}(?!\w)", lambda match: class_word, caption, flags=re.I)
    return plain if replaced else class_word


def plain_captions(captions: list[str], config: Config) -> list[str]:
    """The captions that are preserved beside those that are trained on, one for each; none where nothing is."""
    preserve, trigger = config.loss.preserve, config.output.trigger
    if preserve is None or trigger is None:
        return []
    return [plain_caption(caption, trigger, preserve.class_word) for caption in captions]


def preservation_loss(
    family: Family, encode: CaptionEncoder, captions: list[str], noisy: Tensor, timesteps: Tensor, sizes: Tensor
) -> Tensor:
    """How far the LoRA moves the predictions for plain captions: the mean square, a scalar with gradients.

    Args:
        family: the model, with LoRA layers on it.
        encode: captions to what the denoiser reads.
        captions: B plain captions.
        noisy: (B, 4, h, w) the latents of the step.
        timesteps: (B,) their noise levels.
        sizes: (B, 6) as in ``data.training_set.Batch``.
    """
    with torch.no_grad(), without_adapters(family):
        before = family.predict(noisy, timesteps, encode(captions), sizes)  # (B, 4, h, w)
    now = family.predict(noisy, timesteps, encode(captions), sizes)  # (B, 4, h, w)
    return F.mse_loss(now.float(), before.float())

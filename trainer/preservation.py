"""Differential output preservation: what the model made of the plain class word before, it goes on making.

Each caption is read once more with the trigger word replaced by the class word, and the prediction with the LoRA is
held to the prediction without it (as ai-toolkit): "a photo of sks" may change, "a photo of dog" may not. Unlike prior
preservation it needs no pictures of the class.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.conditioning import CaptionEncoder, Texts
from trainer.families.base import Family
from trainer.lora.adapter import without_adapters


def preservation_loss(
    family: Family, encode: CaptionEncoder, texts: Texts, noisy: Tensor, timesteps: Tensor, sizes: Tensor
) -> Tensor:
    """How far the LoRA moves the predictions for plain captions: the mean square, a scalar with gradients.

    Args:
        family: the model, with LoRA layers on it.
        encode: captions to what the denoiser reads.
        texts: of B plain captions, as ``encode`` has read them.
        noisy: (B, 4, h, w) the latents of the step.
        timesteps: (B,) their noise levels.
        sizes: (B, 6) as in ``data.training_set.Batch``.
    """
    with torch.no_grad(), without_adapters(family):
        before = family.predict(noisy, timesteps, encode.encode(texts), sizes)  # (B, 4, h, w)
    now = family.predict(noisy, timesteps, encode.encode(texts), sizes)  # (B, 4, h, w)
    return F.mse_loss(now.float(), before.float())

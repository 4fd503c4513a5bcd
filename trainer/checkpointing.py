"""Gradient checkpointing by parts: what is computed again in the backward pass instead of being kept for it."""

from __future__ import annotations

import functools

from diffusers import UNet2DConditionModel
from diffusers.models.attention import FeedForward
from torch import nn
from torch.utils.checkpoint import checkpoint

from trainer.config_training import Checkpointing
from trainer.frozen_layers import forget_inputs


def use_checkpointing(denoiser: UNet2DConditionModel, choice: Checkpointing, *, draws: bool = True) -> None:
    """Choose what a denoiser computes again.

    Args:
        denoiser: with its adapters.
        choice: ``all``: every ResNet and transformer block, of which only the input is kept. ``some``: the feed-forward
            layers of the transformer blocks. With both, frozen convolutions keep no inputs. ``off``: nothing.
        draws: whether its adapters draw random numbers, which are then drawn alike again. Where nothing does, the
            generators' state is not kept: reading it waits for the GPU.
    """
    draws = draws or any(isinstance(layer, nn.Dropout) and layer.p > 0 for layer in denoiser.modules())
    again = functools.partial(checkpoint, use_reentrant=False, preserve_rng_state=draws)
    denoiser.disable_gradient_checkpointing()
    if choice != "off":
        forget_inputs(denoiser)
    if choice == "all":
        denoiser.enable_gradient_checkpointing(lambda module, *inputs: again(module, *inputs))
    for layer in denoiser.modules():
        if isinstance(layer, FeedForward):
            vars(layer).pop("forward", None)
            if choice == "some":
                vars(layer)["forward"] = functools.partial(again, layer.forward)

"""A UNet's layers, computed by the kernels. They keep names, weights and adapters: only their class is another."""

from __future__ import annotations

import functools
import logging
from typing import Any

import torch
from diffusers.models.activations import GEGLU
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn
from torch.nn import functional

from trainer.devices import features_of, wait_for
from trainer.families.side_by_side import SideBySideResnetBlock, is_usual, lay_pictures_side_by_side
from trainer.frozen_layers import is_hooked

_log = logging.getLogger("trainer")


def use_fused_layers(denoiser: nn.Module, device: torch.device) -> None:
    """Have a frozen denoiser, with its adapters, compute by the kernels where the device has them; see ``fused``."""
    weights = next(denoiser.parameters())
    if not features_of(device).fused_layers or not _kernels_work(device, weights.dtype):
        return
    for layer in denoiser.modules():
        if type(layer) is nn.GroupNorm and _is_frozen(layer):
            layer.__class__ = FusedGroupNorm
        elif type(layer) is nn.LayerNorm and _is_frozen(layer):
            layer.__class__ = PlainLayerNorm
        elif type(layer) is GEGLU:
            layer.__class__ = FusedGEGLU
        elif type(layer) is ResnetBlock2D and is_usual(layer) and _is_frozen(layer.norm1, layer.norm2):
            layer.__class__ = FusedResnetBlock
        elif type(layer) is BasicTransformerBlock and _is_usual_block(layer):
            layer.__class__ = FusedTransformerBlock
    lay_pictures_side_by_side(denoiser)


@functools.cache
def _kernels_work(device: torch.device, dtype: torch.dtype) -> bool:
    """Try them once in a format, which an old GPU may not have; Triton needs a C compiler, and is not on Windows."""
    try:
        from trainer.fused.functions import try_all

        try_all(device, dtype)
        wait_for(device)
    except Exception as error:  # whatever it is, there is another way
        why = str(error).strip().splitlines()
        _log.info("Layers are not fused: %s: %s", type(error).__name__, why[0] if why else "")
        return False
    return True


class FusedGroupNorm(nn.GroupNorm):
    """``nn.GroupNorm`` of pictures, frozen."""

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, h, w), given in its own format: autocast would make it float32, for the next layer to take back."""
        return _normalised(self, input, activate=False)


class PlainLayerNorm(nn.LayerNorm):
    """``nn.LayerNorm``, frozen: torch computes it in float32 anyway, autocast would have it read and write so too."""

    def forward(self, input: Tensor) -> Tensor:
        """As ``nn.LayerNorm``, given in the input's own format."""
        if input.dtype != self.weight.dtype:
            return super().forward(input)
        with torch.autocast(input.device.type, enabled=False):
            return super().forward(input)


class FusedGEGLU(GEGLU):
    """diffusers' ``GEGLU``."""

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """(..., W) to (..., V)."""
        from trainer.fused.functions import gated

        return gated(self.proj(hidden_states))


class FusedResnetBlock(SideBySideResnetBlock):
    """The same, of those that Stable Diffusion has."""

    def forward(self, input_tensor: Tensor, temb: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """(B, C, h, w) and the time's embedding (B, T) to (B, D, h, w)."""
        from trainer.fused.functions import added_with_bias

        time = self.time_emb_proj(self.nonlinearity(temb))  # (B, D)
        hidden = _normalised(self.norm1, input_tensor, activate=True)
        hidden, bias = _without_bias(self.conv1, hidden)
        hidden = hidden + (time if bias is None else time + bias)[:, :, None, None]
        hidden = _normalised(self.norm2, hidden, activate=True)
        hidden, bias = _without_bias(self.conv2, hidden)
        shortcut = self.shortcut(input_tensor)
        return hidden + shortcut if bias is None else added_with_bias(hidden, shortcut, bias)


class FusedTransformerBlock(BasicTransformerBlock):
    """diffusers' ``BasicTransformerBlock``, of those that Stable Diffusion has."""

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        timestep: Any = None,
        cross_attention_kwargs: Any = None,
        class_labels: Any = None,
        added_cond_kwargs: Any = None,
    ) -> Tensor:
        """(B, L, C) and the texts (B, T, D) to (B, L, C)."""
        asked = (attention_mask, encoder_attention_mask, cross_attention_kwargs)
        if any(each is not None for each in asked) or hidden_states.dtype != self.norm2.weight.dtype:
            return super().forward(
                hidden_states, attention_mask, encoder_hidden_states, encoder_attention_mask, timestep,
                cross_attention_kwargs, class_labels, added_cond_kwargs,
            )  # fmt: skip
        itself = self.attn1(self.norm1(hidden_states))
        hidden_states, normed = _added_and_normalised(self.norm2, hidden_states, itself)
        texts = self.attn2(normed, encoder_hidden_states=encoder_hidden_states)
        hidden_states, normed = _added_and_normalised(self.norm3, hidden_states, texts)
        return self.ff(normed) + hidden_states


def _without_bias(layer: nn.Module, hidden: Tensor) -> tuple[Tensor, Tensor | None]:
    """A convolution's output, and the bias that is still to be added: a plain one's."""
    if type(layer) is not nn.Conv2d or layer.bias is None or is_hooked(layer):
        return layer(hidden), None
    options: Any = (layer.stride, layer.padding, layer.dilation, layer.groups)
    return functional.conv2d(hidden, layer.weight, None, *options), layer.bias


def _added_and_normalised(norm: nn.LayerNorm, x: Tensor, more: Tensor) -> tuple[Tensor, Tensor]:
    from trainer.fused.functions import added_and_normalised

    return added_and_normalised(x, more, norm.weight, norm.bias, norm.eps)


def _normalised(norm: nn.GroupNorm, input: Tensor, *, activate: bool) -> Tensor:
    from trainer.fused.functions import group_norm

    return group_norm(input, norm.num_groups, norm.weight, norm.bias, norm.eps, activate=activate)


def _is_frozen(*norms: Any) -> bool:
    parameters = [parameter for norm in norms for parameter in (norm.weight, norm.bias)]
    return all(each is not None and not each.requires_grad for each in parameters)


def _is_usual_block(block: BasicTransformerBlock) -> bool:
    norms = (block.norm1, block.norm2, block.norm3)
    return (
        block.norm_type == "layer_norm"
        and not block.only_cross_attention
        and block.attn2 is not None
        and block.pos_embed is None
        and not hasattr(block, "fuser")
        and block._chunk_size is None
        and all(isinstance(norm, nn.LayerNorm) and _is_frozen(norm) for norm in norms)
    )

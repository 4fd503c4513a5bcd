"""A UNet's layers that leave pictures as they lie in memory: the channels of a pixel side by side (``channels_last``).

diffusers turns pictures around before and after each transformer, and divides sums by one. Here a picture is also the
list of its pixels, so that a 1x1 convolution is a product. Layers keep names, weights and adapters: only their class
is another.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers import Transformer2DModel
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn
from torch.nn import functional

from trainer.families.convolutions import lay_kernels_out
from trainer.frozen_layers import is_hooked, is_pointwise
from trainer.pixels import as_picture, as_pixels


def lay_pictures_side_by_side(denoiser: nn.Module) -> None:
    """Have a frozen denoiser, with its adapters, compute so."""
    for layer in denoiser.modules():
        if type(layer) is ResnetBlock2D and is_usual(layer):
            layer.__class__ = SideBySideResnetBlock
        elif type(layer) is Transformer2DModel and layer.is_input_continuous:
            layer.__class__ = SideBySideTransformer
    lay_kernels_out(denoiser)


def is_usual(block: ResnetBlock2D) -> bool:
    """Whether it is of those that Stable Diffusion has."""
    return (
        block.upsample is block.downsample is None
        and block.time_emb_proj is not None
        and block.time_embedding_norm == "default"
        and not block.skip_time_act
        and block.output_scale_factor == 1
        and block.dropout.p == 0
        and isinstance(block.nonlinearity, nn.SiLU)
        and all(isinstance(norm, nn.GroupNorm) for norm in (block.norm1, block.norm2))
    )


class SideBySideResnetBlock(ResnetBlock2D):
    """diffusers' ``ResnetBlock2D``, of those that Stable Diffusion has."""

    def forward(self, input_tensor: Tensor, temb: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """(B, C, h, w) and the time's embedding (B, T) to (B, D, h, w)."""
        time = self.time_emb_proj(functional.silu(temb))  # (B, D)
        hidden = self.conv1(functional.silu(self.norm1(input_tensor))) + time[:, :, None, None]
        hidden = self.conv2(functional.silu(self.norm2(hidden)))
        return hidden + self.shortcut(input_tensor)

    def shortcut(self, picture: Tensor) -> Tensor:
        """(B, C, h, w) to (B, D, h, w): what is added to the output."""
        if self.conv_shortcut is None:
            return picture
        size = picture.shape[2:]
        return as_picture(_pointwise(self.conv_shortcut, as_pixels(picture), size), size)


class SideBySideTransformer(Transformer2DModel):
    """diffusers' ``Transformer2DModel`` of pictures."""

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        timestep: Any = None,
        added_cond_kwargs: Any = None,
        class_labels: Any = None,
        cross_attention_kwargs: Any = None,
        attention_mask: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        return_dict: bool = True,
    ) -> Any:
        """(B, C, h, w) and the texts (B, T, D) to (B, C, h, w)."""
        size = hidden_states.shape[2:]
        pixels = self._projected(self.proj_in, as_pixels(self.norm(hidden_states)), size)
        asked = (attention_mask, encoder_hidden_states, encoder_attention_mask)
        rest = (*asked, timestep, cross_attention_kwargs, class_labels)
        for block in self.transformer_blocks:
            if self.gradient_checkpointing and torch.is_grad_enabled():
                pixels = self._gradient_checkpointing_func(block, pixels, *rest)
            else:
                pixels = block(pixels, *rest)
        picture = as_picture(self._projected(self.proj_out, pixels, size), size) + hidden_states
        return Transformer2DModelOutput(sample=picture) if return_dict else (picture,)

    def _projected(self, layer: nn.Module, pixels: Tensor, size: torch.Size) -> Tensor:
        return layer(pixels) if self.use_linear_projection else _pointwise(layer, pixels, size)


def _pointwise(layer: nn.Module, pixels: Tensor, size: torch.Size) -> Tensor:
    """A 1x1 convolution of (B, h * w, C): a plain one is a product; others, such as adapters, have their own ways."""
    if type(layer) is nn.Conv2d and is_pointwise(layer) and not is_hooked(layer):
        return functional.linear(pixels, layer.weight.flatten(1), layer.bias)
    return as_pixels(layer(as_picture(pixels, size)))

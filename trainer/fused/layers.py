"""A UNet's layers, computed by the kernels. They keep names, weights and adapters: only their class is another."""

from __future__ import annotations

import functools
import logging
from typing import Any

import torch
from diffusers.models.activations import GEGLU
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn
from torch.nn import functional

from trainer.devices import features_of, wait_for

_log = logging.getLogger("trainer")


def use_fused_layers(denoiser: nn.Module, device: torch.device) -> None:
    """Have a frozen denoiser, with its adapters, compute by the kernels where the device has them; see ``fused``.

    Kernels of convolutions are laid out as the GPU's matrix units read them, which it does anew in each call otherwise.
    """
    if not features_of(device).fused_layers or not _kernels_work(device):
        return
    for layer in denoiser.modules():
        if type(layer) is nn.GroupNorm and _is_frozen(layer):
            layer.__class__ = FusedGroupNorm
        elif type(layer) is nn.LayerNorm and _is_frozen(layer):
            layer.__class__ = PlainLayerNorm
        elif type(layer) is GEGLU:
            layer.__class__ = FusedGEGLU
        elif type(layer) is ResnetBlock2D and _is_usual(layer):
            layer.__class__ = FusedResnetBlock
        if isinstance(layer, nn.Conv2d) and not layer.weight.requires_grad and max(layer.kernel_size) > 1:
            layer.weight.data = layer.weight.data.contiguous(memory_format=torch.channels_last)


@functools.cache
def _kernels_work(device: torch.device) -> bool:
    """Try them once: Triton needs a C compiler beside the GPU, and is not there on Windows."""
    try:
        from trainer.fused.functions import gated, group_norm

        x, weight = torch.ones(1, 32, 2, 2, device=device, requires_grad=True), torch.ones(32, device=device)
        (group_norm(x, 32, weight, weight, 1e-5, activate=True).sum() + gated(x).sum()).backward()
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


class FusedResnetBlock(ResnetBlock2D):
    """diffusers' ``ResnetBlock2D``, of those that Stable Diffusion has."""

    def forward(self, input_tensor: Tensor, temb: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """(B, C, h, w) and the time's embedding (B, T) to (B, D, h, w)."""
        time = self.time_emb_proj(self.nonlinearity(temb))  # (B, D)
        hidden = _normalised(self.norm1, input_tensor, activate=True)
        hidden = _plus(self.conv1, hidden, time)
        hidden = _normalised(self.norm2, hidden, activate=True)
        shortcut = input_tensor if self.conv_shortcut is None else self.conv_shortcut(input_tensor)
        return self.conv2(hidden) + shortcut


def _plus(layer: nn.Module, hidden: Tensor, time: Tensor) -> Tensor:
    """A convolution's output and a value for each channel: a plain one's bias goes along."""
    if type(layer) is nn.Conv2d and layer.bias is not None:
        time = time + layer.bias
        options: Any = (layer.stride, layer.padding, layer.dilation, layer.groups)
        output = functional.conv2d(hidden, layer.weight, None, *options)
    else:
        output = layer(hidden)
    return output + time[:, :, None, None]


def _normalised(norm: nn.GroupNorm, input: Tensor, *, activate: bool) -> Tensor:
    from trainer.fused.functions import group_norm

    return group_norm(input, norm.num_groups, norm.weight, norm.bias, norm.eps, activate=activate)


def _is_frozen(layer: nn.GroupNorm | nn.LayerNorm) -> bool:
    parameters = (layer.weight, layer.bias)
    return all(each is not None and not each.requires_grad for each in parameters)


def _is_usual(block: ResnetBlock2D) -> bool:
    norms = (block.norm1, block.norm2)
    return (
        block.upsample is block.downsample is None
        and block.time_emb_proj is not None
        and block.time_embedding_norm == "default"
        and not block.skip_time_act
        and block.output_scale_factor == 1
        and block.dropout.p == 0
        and isinstance(block.nonlinearity, nn.SiLU)
        and all(isinstance(norm, nn.GroupNorm) and _is_frozen(norm) for norm in norms)
    )

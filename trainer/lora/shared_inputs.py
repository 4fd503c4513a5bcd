"""Attention whose query, key and value, or key and value, read one input: one product in place of two or three."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from torch import Tensor, nn
from torch.nn import functional

from trainer.lora.lora_product import ADAPTER, LoraLinear, SharedProduct, factors, is_plain, join


def share_inputs(module: nn.Module) -> None:
    """Let a model's attention, with LoRAs on it, compute what reads the same input at once; the values stay."""
    for attention in module.modules():
        if isinstance(attention, Attention) and _is_usual(attention):
            together = _together(attention)
            if all(type(layer) is LoraLinear and layer.base_layer.bias is None for layer in together):
                attention.set_processor(SharedInputProcessor())
    join_inputs(module)


def join_inputs(module: nn.Module) -> None:
    """Lay weights that are used at once one behind the other in memory. A step does so too where they are apart."""
    for attention in module.modules():
        if isinstance(attention, Attention) and isinstance(attention.processor, SharedInputProcessor):
            join([layer.base_layer.weight for layer in _together(attention)])


class SharedInputProcessor:
    """diffusers' ``AttnProcessor2_0`` for layers of ours; whatever else it is asked for is diffusers' own."""

    def __init__(self) -> None:
        self._usual = AttnProcessor2_0()

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        """``hidden_states`` (B, L, C) look at themselves, or at ``encoder_hidden_states`` (B, T, D)."""
        together = _together(attn)
        plain = all(type(layer) is LoraLinear and is_plain(layer) for layer in together)
        asked_more = attention_mask is not None or (encoder_hidden_states is not None) != attn.is_cross_attention
        if not plain or asked_more or hidden_states.ndim != 3:
            return self._usual(attn, hidden_states, encoder_hidden_states, attention_mask, temb)
        if encoder_hidden_states is None:
            query, key, value = _at_once(together, hidden_states)
        else:
            query = attn.to_q(hidden_states)
            key, value = _at_once(together, encoder_hidden_states)
        heads = [part.unflatten(2, (attn.heads, -1)).transpose(1, 2) for part in (query, key, value)]
        looked_up = functional.scaled_dot_product_attention(*heads)
        return attn.to_out[1](attn.to_out[0](looked_up.transpose(1, 2).flatten(2)))


def _is_usual(attention: Attention) -> bool:
    """Whether it is the attention of Stable Diffusion's UNets: without norms, masks and scales of its own."""
    return (
        type(attention.processor) is AttnProcessor2_0
        and attention.group_norm is attention.spatial_norm is attention.norm_q is attention.norm_k is None
        and not attention.norm_cross
        and not attention.residual_connection
        and attention.rescale_output_factor == 1
    )


def _together(attention: Any) -> list[Any]:
    """The layers that read the same input: with cross attention keys and values do, else queries too."""
    pair = [attention.to_k, attention.to_v]
    return pair if attention.is_cross_attention else [attention.to_q, *pair]


def _at_once(layers: Sequence[LoraLinear], x: Tensor) -> tuple[Tensor, ...]:
    pairs = [factors(layer) for layer in layers]
    scales = tuple(layer.scaling[ADAPTER] for layer in layers)
    weights = [layer.base_layer.weight for layer in layers]
    join(weights)  # a model that was moved to another device since has them apart
    output = SharedProduct.apply(x, scales, *weights, *[down for down, _ in pairs], *[up for _, up in pairs])
    return output.split([len(weight) for weight in weights], -1)

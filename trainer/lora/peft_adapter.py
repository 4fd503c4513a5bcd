"""Plain LoRA layers through PEFT."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from peft import LoraConfig
from peft.tuners.lora import LoraLayer as PeftLayer
from torch import Tensor, nn

from trainer.config import LoraSettings
from trainer.lora.dropout import Draws, RowDropout, add_dropout
from trainer.lora.first_values import fill_kaiming_uniform
from trainer.lora.layers import Layer, LoraLayer, plain_shape, product_norm
from trainer.lora.lora_convolution import use_convolution_products
from trainer.lora.lora_product import ADAPTER, factors, use_products
from trainer.lora.rounded import round_before_forward
from trainer.lora.shared_inputs import share_inputs


def add_peft_adapters(module: Any, layers: list[tuple[str, int, float]], settings: LoraSettings, draws: Draws) -> None:
    """Put PEFT's LoRA layers on a model, given as (name, rank, alpha), with dropouts, in the model's mode."""
    module.add_adapter(_peft_config(layers, settings.dropout), adapter_name=ADAPTER)
    module.train(module.training)  # new layers come in training mode, whatever the model is in
    products: list[Any] = []
    for layer in module.modules():
        if isinstance(layer, PeftLayer) and ADAPTER in layer.lora_A:
            layer.lora_A.float()
            layer.lora_B.float()
            if settings.has_dropout:
                add_dropout(layer.lora_A[ADAPTER], layer.lora_B[ADAPTER], settings, draws)
                if settings.dropout:
                    layer.lora_dropout[ADAPTER] = RowDropout(settings.dropout, draws).train(layer.training)
            else:
                use_products(layer)
                use_convolution_products(layer)
                products.append(layer)
    share_inputs(module)
    if products:
        round_before_forward(module, lambda: [factor for layer in products for factor in factors(layer)])


class PeftAdapter:
    """One of PEFT's LoRA layers, with what ``weight_adapters.WeightAdapter`` has.

    Attributes:
        factors: down and up.
    """

    def __init__(self, layer: PeftLayer) -> None:
        self._layer = layer
        self._down: nn.Parameter = layer.lora_A[ADAPTER].weight
        self._up: nn.Parameter = layer.lora_B[ADAPTER].weight
        self._alpha, self._scale = float(layer.lora_alpha[ADAPTER]), float(layer.scaling[ADAPTER])
        self.factors = [self._down, self._up]

    def start(self, weight: Tensor, generator: torch.Generator) -> None:
        """Kaiming uniform down, zero up, as every LoRA trainer does."""
        fill_kaiming_uniform(self._down, generator)
        nn.init.zeros_(self._up)

    def trained(self) -> list[tuple[nn.Parameter, bool]]:
        """What learns, and whether it is the up part."""
        return [(self._down, False), (self._up, True)]

    def switch(self, on: bool) -> None:
        """Let the layer be as it was without the adapter, and back. Frozen factors stay so: PEFT lets them learn."""
        learning = [factor.requires_grad for factor in self.factors]
        self._layer.enable_adapters(on)
        for factor, learns in zip(self.factors, learning, strict=True):
            factor.requires_grad_(learns)

    def norm(self) -> Tensor:
        """Frobenius norm of the scaled product."""
        return abs(self._scale) * product_norm(self._up, self._down)

    def saved(self) -> Layer:
        """The layer as a file keeps it: float32 copies on the CPU."""
        down, up = (factor.detach().to("cpu", torch.float32, copy=True) for factor in self.factors)
        return LoraLayer(down, up, self._alpha)

    @torch.no_grad()
    def take(self, layer: Layer, weight: Tensor) -> bool:
        """Take a file's values, in the same strength; False, and nothing is taken, where they do not fit."""
        if not isinstance(layer, LoraLayer) or not layer.is_plain:
            return False
        pairs = [(self._down, layer.down), (self._up, layer.up.float() * (layer.scale / self._scale))]
        if any(plain_shape(own.shape) != plain_shape(theirs.shape) for own, theirs in pairs):
            return False
        for own, theirs in pairs:
            own.copy_(theirs.reshape(own.shape))
        return True


def _peft_config(layers: list[tuple[str, int, float]], dropout: float) -> LoraConfig:
    """PEFT's settings for these layers; what most have is the rule, the others are in patterns."""
    names = [name for name, _, _ in layers]
    ranks, alphas = {name: rank for name, rank, _ in layers}, {name: alpha for name, _, alpha in layers}
    usual_rank, usual_alpha = (Counter(values.values()).most_common(1)[0][0] for values in (ranks, alphas))
    return LoraConfig(
        r=int(usual_rank),
        lora_alpha=usual_alpha,
        lora_dropout=dropout,
        target_modules=names,
        rank_pattern=_patterns(ranks, usual_rank),
        alpha_pattern=_patterns(alphas, usual_alpha),
    )


def _patterns(values: Mapping[str, float], usual: float) -> dict[str, Any]:
    """One regular expression for all layers of a value, as PEFT matches names: value by expression.

    Anchored, or ``conv1`` of one block would hit every block. Not one for each layer: PEFT tries all on every layer,
    compiling them anew each time when they are many, which took a minute for SDXL.
    """
    names: dict[float, list[str]] = {}
    for name, value in values.items():
        if value != usual:
            names.setdefault(value, []).append(re.escape(name))
    return {f"^(?:{'|'.join(same)})": value for value, same in names.items()}

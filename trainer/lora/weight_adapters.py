"""Adapters that are the change of a weight rather than a second path: DoRA, LoHa and LoKr.

They hang on their layer as a child module and add ``op(input, change of the weight)`` to its output. The change is
computed in float32 and only then cast: added to a weight in bfloat16 a small change would be lost.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from trainer.config import LoraSettings
from trainer.lora.dropout import Draws, drop_module
from trainer.lora.first_values import fill_kaiming_uniform, fill_normal
from trainer.lora.layers import (
    Layer,
    LohaLayer,
    LokrLayer,
    LoraLayer,
    factor_product,
    kronecker,
    magnitude_of,
    product_norm,
    without_core,
)
from trainer.lora.sizes import kronecker_sides, second_is_whole

CHILD = "weight_adapter"
"""The name under which an adapter hangs on its layer."""

BaseLayer = nn.Linear | nn.Conv2d


class WeightAdapter(nn.Module, ABC):
    """Adds ``scale`` times a product of trained factors to a layer's weight.

    Attributes:
        rank: of the factors.
        alpha: as it is written into files.
        factors: what the product is made of; it is linear in each.
        draws: where the chance of dropped inputs comes from.
    """

    def __init__(self, base: BaseLayer, rank: int, alpha: float, settings: LoraSettings) -> None:
        super().__init__()
        self.rank, self.alpha = rank, alpha
        self._dropout, self._rank_dropout = settings.dropout, settings.rank_dropout
        self._module_dropout = settings.module_dropout
        self.factors: list[nn.Parameter] = []
        self.draws = Draws()
        self._on = True

    def attach(self, base: BaseLayer) -> None:
        """Hang on the layer, on its device and in its mode."""
        self.to(base.weight.device).train(base.training)
        base.add_module(CHILD, self)
        base.register_forward_hook(self._add_to)

    @abstractmethod
    def start(self, weight: Tensor, generator: torch.Generator) -> None:
        """Set the first values, so that nothing is changed yet."""

    @abstractmethod
    def delta(self) -> Tensor:
        """The scaled product, of the weight's shape, without dropout of ranks."""

    @abstractmethod
    def saved(self) -> Layer:
        """The layer as a file keeps it: float32 copies on the CPU."""

    @abstractmethod
    def take(self, layer: Layer, weight: Tensor) -> bool:
        """Take a file's values, in the same strength; False, and nothing is taken, where they do not fit."""

    @property
    def scale(self) -> float:
        """What the product of the factors is multiplied with."""
        return self.alpha / self.rank

    def trained(self) -> list[tuple[nn.Parameter, bool]]:
        """What learns, and whether it is an up part in the sense of LoRA+."""
        return [(factor, False) for factor in self.factors]

    def switch(self, on: bool) -> None:
        """Let the layer be as it was without the adapter, and back."""
        self._on = on

    def change(self, base: BaseLayer) -> Tensor:
        """What is added to the layer's weight, float32; in training with dropped ranks."""
        return self._without_some_rows(self.delta())

    def norm(self) -> Tensor:
        """Frobenius norm of the scaled product."""
        return self.delta().norm()

    def _without_some_rows(self, delta: Tensor) -> Tensor:
        """Rank dropout as in LyCORIS: it drops outputs, for the whole batch; the others grow by ``1 / (1 - share)``."""
        if not self.training or not self._rank_dropout:
            return delta
        kept = torch.rand(len(delta), *[1] * (delta.ndim - 1), device=delta.device) >= self._rank_dropout
        return delta * (kept / (1 - self._rank_dropout))

    def _add_to(self, base: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """The layer's forward hook."""
        assert isinstance(base, nn.Linear | nn.Conv2d)
        if not self._on:
            return output
        hidden = self.draws.dropout(inputs[0], self._dropout, self.training)
        with torch.autocast(hidden.device.type, enabled=False):
            # The product's parts, as large as the weight, are computed again in the backward pass instead of kept, and
            # so is the weight itself, unpacked or fetched; checkpoint keeps what it is given
            rows_are_drawn = self.training and self._rank_dropout > 0
            change = checkpoint(lambda: self.change(base), use_reentrant=False, preserve_rng_state=rows_are_drawn)
        extra = _apply(base, hidden, change.to(hidden.dtype))
        if self.training and self._module_dropout:
            extra = drop_module(extra, self._module_dropout)
        return output + extra.to(output.dtype)


class DoraAdapter(WeightAdapter):
    """DoRA (Liu et al. 2024, 2402.09353, equation 5): ``W' = m (W + s B A) / ||W + s B A||``.

    The norm is the paper's: one for each input, over the outputs; one for each output in an adapter that goes on from a
    file with those. Readers of ``dora_scale`` tell by its shape. In the gradient it counts as a constant (section 4.3).
    """

    def __init__(self, base: BaseLayer, rank: int, alpha: float, settings: LoraSettings) -> None:
        super().__init__(base, rank, alpha, settings)
        shape = base.weight.shape
        self.down = nn.Parameter(torch.empty(rank, *shape[1:]))
        self.up = nn.Parameter(torch.zeros(shape[0], rank, *[1] * (len(shape) - 2)))
        self.magnitude = nn.Parameter(torch.ones(1, shape[1], *[1] * (len(shape) - 2)))
        self.factors = [self.down, self.up]

    def start(self, weight: Tensor, generator: torch.Generator) -> None:
        fill_kaiming_uniform(self.down, generator)
        nn.init.zeros_(self.up)
        self._keep_lengths(weight)

    def trained(self) -> list[tuple[nn.Parameter, bool]]:
        return [(self.down, False), (self.up, True), (self.magnitude, False)]

    def delta(self) -> Tensor:
        product = self.up.flatten(1) @ self.down.flatten(1) * self.scale
        return product.reshape(len(self.up), *self.down.shape[1:])

    def norm(self) -> Tensor:
        return abs(self.scale) * product_norm(self.up, self.down)

    def change(self, base: BaseLayer) -> Tensor:
        weight = base.weight.float()
        direction = weight + self._without_some_rows(self.delta())
        lengths = magnitude_of(direction.detach(), self.magnitude.shape)
        return direction * (self.magnitude / lengths) - weight

    def saved(self) -> Layer:
        return LoraLayer(_copy(self.down), _copy(self.up), self.alpha, _copy(self.magnitude))

    @torch.no_grad()
    def take(self, layer: Layer, weight: Tensor) -> bool:
        """A LoRA without magnitude is taken too: the lengths are then those it gives the weight.

        A magnitude with a length for each output, as some tools write it, makes this adapter one of that kind.
        """
        if not isinstance(layer, LoraLayer) or not _take_all(
            self.factors, [layer.down, layer.up], layer.scale / self.scale
        ):
            return False
        if layer.magnitude is None:
            self._keep_lengths(weight)
        else:
            sizes = [*layer.magnitude.shape[:2], *[1] * (weight.ndim - 2)]
            self.magnitude = nn.Parameter(layer.magnitude.to(self.magnitude, copy=True).reshape(sizes))
        return True

    @torch.no_grad()
    def _keep_lengths(self, weight: Tensor) -> None:
        """The magnitude with which ``W + s B A`` stays what it is."""
        self.magnitude.copy_(magnitude_of(weight.float() + self.delta(), self.magnitude.shape))


class LohaAdapter(WeightAdapter):
    """LoHa: ``scale * (w1_a @ w1_b) * (w2_a @ w2_b)``; see ``layers.LohaLayer``."""

    def __init__(self, base: BaseLayer, rank: int, alpha: float, settings: LoraSettings) -> None:
        super().__init__(base, rank, alpha, settings)
        self._shape = base.weight.shape
        outputs, inputs = len(base.weight), base.weight[0].numel()
        self.hada_w1_a, self.hada_w2_a = (nn.Parameter(torch.zeros(outputs, rank)) for _ in range(2))
        self.hada_w1_b, self.hada_w2_b = (nn.Parameter(torch.zeros(rank, inputs)) for _ in range(2))
        self.factors = [self.hada_w1_a, self.hada_w1_b, self.hada_w2_a, self.hada_w2_b]

    def start(self, weight: Tensor, generator: torch.Generator) -> None:
        """As LyCORIS: normal with standard deviations 0.1, 1, 0 and 1."""
        for factor, deviation in zip(self.factors, (0.1, 1.0, 0.0, 1.0), strict=True):
            fill_normal(factor, deviation, generator)

    def delta(self) -> Tensor:
        first, second = self.hada_w1_a @ self.hada_w1_b, self.hada_w2_a @ self.hada_w2_b
        return (first * second * self.scale).reshape(self._shape)

    def saved(self) -> Layer:
        first_left, first_right, second_left, second_right = map(_copy, self.factors)
        return LohaLayer(first_left, first_right, second_left, second_right, self.alpha)

    @torch.no_grad()
    def take(self, layer: Layer, weight: Tensor) -> bool:
        """A convolution in Tucker form (``hada_t1``) is taken as two factors more: the same change."""
        if not isinstance(layer, LohaLayer) or layer.magnitude is not None:
            return False
        first = without_core(layer.hada_w1_a, layer.hada_w1_b, layer.hada_t1)
        second = without_core(layer.hada_w2_a, layer.hada_w2_b, layer.hada_t2)
        return _take_all(self.factors, [*first, *second], layer.scale / self.scale)


class LokrAdapter(WeightAdapter):
    """LoKr: ``scale * kron(w1, w2)``, the second matrix whole or as factors; see ``layers.LokrLayer``."""

    def __init__(self, base: BaseLayer, rank: int, alpha: float, settings: LoraSettings) -> None:
        super().__init__(base, rank, alpha, settings)
        shape, factor = base.weight.shape, settings.lokr_factor
        (out_1, out_2), (in_1, in_2) = kronecker_sides(shape[0], factor), kronecker_sides(shape[1], factor)
        self._shape = shape
        self._whole = second_is_whole(shape, rank, factor)
        self.lokr_w1 = nn.Parameter(torch.empty(out_1, in_1))
        if self._whole:
            self.alpha = float(rank)  # what LyCORIS writes where the scale is 1
            self.lokr_w2 = nn.Parameter(torch.empty(out_2, in_2, *shape[2:]))
            self.factors = [self.lokr_w1, self.lokr_w2]
        else:
            self.lokr_w2_a = nn.Parameter(torch.empty(out_2, rank))
            self.lokr_w2_b = nn.Parameter(torch.empty(rank, in_2 * math.prod(shape[2:])))
            self.factors = [self.lokr_w1, self.lokr_w2_a, self.lokr_w2_b]

    def start(self, weight: Tensor, generator: torch.Generator) -> None:
        """As LyCORIS: uniform, and the last factor zero."""
        for factor in self.factors[:-1]:
            fill_kaiming_uniform(factor, generator)
        nn.init.zeros_(self.factors[-1])

    def delta(self) -> Tensor:
        second = self.lokr_w2 if self._whole else factor_product(self.lokr_w2_a, self.lokr_w2_b)
        return (kronecker(self.lokr_w1, second) * self.scale).reshape(self._shape)

    def saved(self) -> Layer:
        first, *second = map(_copy, self.factors)
        if self._whole:
            return LokrLayer(self.alpha, lokr_w1=first, lokr_w2=second[0])
        return LokrLayer(self.alpha, lokr_w1=first, lokr_w2_a=second[0], lokr_w2_b=second[1])

    @torch.no_grad()
    def take(self, layer: Layer, weight: Tensor) -> bool:
        """A first matrix in factors is multiplied out, a Tucker form (``lokr_t2``) too: the same change."""
        if not isinstance(layer, LokrLayer) or layer.magnitude is not None or not layer.fits(tuple(weight.shape)):
            return False
        first, whole = layer.halves(torch.float32)
        left, right = layer.lokr_w2_a, layer.lokr_w2_b
        if self._whole:
            second = [whole]
        elif left is not None and right is not None:
            second = [*without_core(left, right, layer.lokr_t2)]
        else:
            return False
        return _take_all(self.factors, [first, *second], layer.scale / self.scale)


WEIGHT_ADAPTERS: dict[str, Callable[[BaseLayer, int, float, LoraSettings], WeightAdapter]] = {
    "dora": DoraAdapter,
    "loha": LohaAdapter,
    "lokr": LokrAdapter,
}
"""By ``lora.type``."""


def _apply(base: BaseLayer, hidden: Tensor, weight: Tensor) -> Tensor:
    """What the layer would give with this weight and no bias."""
    if isinstance(base, nn.Linear):
        return functional.linear(hidden, weight)
    return functional.conv2d(hidden, weight, None, base.stride, base.padding, base.dilation, base.groups)


def _take_all(own: list[nn.Parameter], theirs: Sequence[Tensor], ratio: float) -> bool:
    """Copy all, the last one times ``ratio``, if all fit; a kernel may be flat, or left out where it is 1x1."""
    if any(len(one) != len(other) or one.numel() != other.numel() for one, other in zip(own, theirs, strict=True)):
        return False
    for factor, tensor in zip(own, theirs, strict=True):
        factor.copy_(tensor.reshape(factor.shape))
    own[-1].mul_(ratio)
    return True


def _copy(weight: Tensor) -> Tensor:
    return weight.detach().to("cpu", torch.float32, copy=True)

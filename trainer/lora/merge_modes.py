"""The ways to make one layer of several, by what they do to the weight.

The change wanted is ``sum(ratio * change)``. ``exact`` keeps it whole by stacking the factors, ``svd`` keeps the best
approximation of a rank. ``ties`` and ``dare`` thin the changes out first. ``kohya`` reproduces the numbers that
sd-scripts' ``merge_lora.py`` writes, whose effect is *not* that sum (0.5 of a LoRA comes out as 0.25 of it).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from trainer.devices import seeded_generator
from trainer.errors import UserError
from trainer.lora.decompose import Decomposition, layer_of, of_matrix, of_product
from trainer.lora.layers import LoraLayer, Shape
from trainer.lora.merge_parts import Part, identity_factors
from trainer.lora.merge_settings import MergeSettings
from trainer.lora.tensor_file import DTYPES

Parts = Sequence[Part]


@dataclass
class Combiner:
    """Makes one layer of several, and keeps count of what the modes with a rank leave out.

    Attributes:
        settings: the mode and what belongs to it.
        device: where matrices are computed with.
        kept: for each layer done, the share of the change's squared norm that the result has.
    """

    settings: MergeSettings
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    kept: dict[str, float] = field(default_factory=dict)

    def combine(self, module: str, parts: Parts, shape: Shape) -> LoraLayer:
        """The layer for a weight of this shape. Raises UserError for what ``kohya`` cannot merge."""
        ways = {
            "exact": self._exact,
            "svd": self._svd,
            "ties": self._ties,
            "dare": self._dare,
            "kohya": self._kohya,
        }
        return ways[self.settings.mode](module, parts, shape)

    def result_rank(self, parts: Parts, shape: Shape) -> int:
        """The rank that ``combine`` will give, as far as shapes tell it."""
        smaller = min(shape[0], math.prod(shape[1:]))
        if self.settings.mode == "kohya":
            return parts[0].layer.rank
        if self.settings.mode == "exact":
            plain = all(part.is_plain for part in parts)
            return sum(part.layer.rank for part in parts) if plain else _stacked_rank(parts, smaller)
        return min(self._rank(shape), _stacked_rank(parts, smaller) if self.settings.mode == "svd" else smaller)

    def _exact(self, module: str, parts: Parts, shape: Shape) -> LoraLayer:
        """Stack the factors. The largest part keeps its numbers as they are, so that little is lost in fp16."""
        if all(part.is_plain for part in parts):
            return _stacked(parts, shape)
        smaller = min(shape[0], math.prod(shape[1:]))
        if _stacked_rank(parts, smaller) < smaller:
            up, down = _stack(parts, torch.float32)
        else:
            up, down = (factor.cpu() for factor in identity_factors(self._sum(parts)))
        return layer_of(up, down, shape, alpha=float(down.shape[0]))

    def _svd(self, module: str, parts: Parts, shape: Shape) -> LoraLayer:
        """Through the small core of the stacked factors, unless they are no thinner than the weight itself."""
        plenty = 2 * min(shape[0], math.prod(shape[1:]))
        if _stacked_rank(parts, plenty) < plenty:
            up, down = _stack(parts, torch.float64)
            return self._truncated(module, of_product(up.to(self.device), down.to(self.device)), shape)
        exact = all(part.is_plain for part in parts)
        return self._truncated(module, of_matrix(self._sum(parts), self._rank(shape), exact=exact), shape)

    def _ties(self, module: str, parts: Parts, shape: Shape) -> LoraLayer:
        changes = [part.matrix(self.device) for part in parts]
        merged = ties(changes, [part.ratio for part in parts], self.settings.complete().density or 1.0)
        return self._truncated(module, of_matrix(merged, self._rank(shape)), shape)

    def _dare(self, module: str, parts: Parts, shape: Shape) -> LoraLayer:
        changes = [part.matrix(self.device) for part in parts]
        settings = self.settings.complete()
        draws = [seeded_generator(settings.seed or 0, "dare", module, part.number) for part in parts]
        merged = dare(changes, [part.ratio for part in parts], settings.density or 1.0, draws)
        return self._truncated(module, of_matrix(merged, self._rank(shape)), shape)

    def _kohya(self, module: str, parts: Parts, shape: Shape) -> LoraLayer:
        return kohya(parts, shape, DTYPES[self.settings.precision])

    def _rank(self, shape: Shape) -> int:
        is_large_conv = len(shape) == 4 and shape[2:] != (1, 1)
        own = self.settings.conv_rank if is_large_conv else None
        return own or self.settings.rank or 1

    def _sum(self, parts: Parts) -> Tensor:
        total = parts[0].matrix(self.device).mul_(parts[0].ratio)
        for part in parts[1:]:
            total.add_(part.matrix(self.device), alpha=part.ratio)
        return total

    def _truncated(self, module: str, found: Decomposition, shape: Shape) -> LoraLayer:
        """The best approximation of the rank wanted (Eckart and Young 1936)."""
        rank = min(self._rank(shape), len(found.values))
        energy = float(found.values[:rank].double().square().sum())
        self.kept[module] = min(1.0, energy / found.energy) if found.energy else 1.0
        up, down = (factor.float().cpu() for factor in found.factors(rank))
        return layer_of(up, down, shape, alpha=float(rank))


def ties(changes: Sequence[Tensor], ratios: Sequence[float], density: float) -> Tensor:
    """TIES (Yadav et al. 2023, 2306.01708, algorithm 1): trim, elect signs, mean of those that agree.

    Of each change the ``density`` share of largest entries stays. The sign of an entry is that of the weighted sum, and
    its value the mean of the weighted entries with this sign; those trimmed to zero do not count.

    Args:
        changes: float matrices of one shape.
        ratios: what each is multiplied with.
        density: share of entries kept, above 0 and up to 1; at least one is.
    """
    weighted = [trimmed(change, density) * ratio for change, ratio in zip(changes, ratios, strict=True)]
    sign = torch.sign(torch.stack(weighted).sum(dim=0))
    total, count = torch.zeros_like(sign), torch.zeros_like(sign)
    for change in weighted:
        agrees = (torch.sign(change) == sign) & (sign != 0)
        total += torch.where(agrees, change, 0)
        count += agrees
    return total / count.clamp(min=1)


def trimmed(change: Tensor, density: float) -> Tensor:
    """The largest ``density`` share of a matrix's entries by magnitude, the others zero."""
    count = max(1, round(density * change.numel()))
    kept = torch.topk(change.abs().flatten(), count, sorted=False).indices
    result = torch.zeros_like(change).flatten()
    result[kept] = change.flatten()[kept]
    return result.reshape(change.shape)


def dare(
    changes: Sequence[Tensor], ratios: Sequence[float], density: float, draws: Sequence[torch.Generator]
) -> Tensor:
    """DARE (Yu et al. 2023, 2311.03099, equation 3): drop entries at random, rescale by ``1 / density``, add.

    The expected value is the plain sum. ``draws``: a CPU generator for each change, so that a result depends neither
    on the device nor on the other layers.
    """
    total = torch.zeros_like(changes[0])
    for change, ratio, draw in zip(changes, ratios, draws, strict=True):
        kept = torch.rand(change.shape, generator=draw) < density
        total += torch.where(kept.to(change.device), change, 0) * (ratio / density)
    return total


def kohya(parts: Parts, shape: Shape, dtype: torch.dtype) -> LoraLayer:
    """sd-scripts' ``networks/merge_lora.py`` and ``sdxl_merge_lora.py``: both factors are scaled, then summed.

    ``scale = sqrt(alpha / first alpha) * ratio``, for ``up`` its absolute value; the first alpha stays. Raises
    UserError for alphas that have no such root.
    """
    alpha = parts[0].layer.alpha
    down: Tensor | None = None
    up: Tensor | None = None
    for part in parts:
        layer = part.layer
        if not isinstance(layer, LoraLayer):
            raise ValueError(f"sd-scripts cannot merge a {layer.name}")
        if alpha == 0 or layer.alpha / alpha < 0:
            message = f"mode: kohya cannot merge alphas of {alpha:g} and {layer.alpha:g}."
            raise UserError("merge.alpha", message, "Choose exact.", "mode")
        scale = math.sqrt(layer.alpha / alpha) * part.ratio
        layer = as_shaped(layer, shape)
        scaled_down, scaled_up = layer.down.to(dtype) * scale, layer.up.to(dtype) * abs(scale)
        down = scaled_down if down is None else down + scaled_down
        up = scaled_up if up is None else up + scaled_up
    if down is None or up is None:
        raise ValueError("a module without layers cannot be merged")
    return LoraLayer(down, up, alpha)


def as_shaped(layer: LoraLayer, shape: Shape) -> LoraLayer:
    """A 1x1 convolution and a linear layer are the same but for the ones in their shapes."""
    if layer.is_conv == (len(shape) == 4):
        return layer
    return LoraLayer(layer.down[:, :, None, None], layer.up[:, :, None, None], layer.alpha)


def _stacked(parts: Parts, shape: Shape) -> LoraLayer:
    """Plain LoRAs side by side, in the numbers they have."""
    layers = [as_shaped(part.layer, shape) for part in parts if isinstance(part.layer, LoraLayer)]
    scales = [part.ratio * part.layer.scale for part in parts]
    largest = max(abs(scale) for scale in scales) or 1.0
    down = torch.cat([layer.down.float() for layer in layers], dim=0)
    up = torch.cat([layer.up.float() * (scale / largest) for layer, scale in zip(layers, scales, strict=True)], dim=1)
    return LoraLayer(down, up, alpha=largest * down.shape[0])


def _stack(parts: Parts, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """``up`` (out, all ranks) with the ratios in it, and ``down`` (all ranks, in)."""
    factors = [part.factors(dtype) for part in parts]
    up = torch.cat([up * part.ratio for (up, _), part in zip(factors, parts, strict=True)], dim=1)
    return up, torch.cat([down for _, down in factors], dim=0)


def _stacked_rank(parts: Parts, full: int) -> int:
    """The rank of the factors together; ``full`` where it would be more, or a part has none."""
    ranks = [part.factor_rank for part in parts]
    return min(full, sum(full if rank is None else rank for rank in ranks))

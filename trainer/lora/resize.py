"""A LoRA of another rank that changes the weights as nearly as possible in the same way.

Every layer's change is decomposed and its largest singular values are kept; ``alpha / rank`` stays what it was, so the
strength does. LoHa and LoKr layers become LoRA layers; of a DoRA the direction's change is resized and the magnitude
stays.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from trainer.errors import Problem
from trainer.lora.decompose import Decomposition, layer_of, of_product
from trainer.lora.file import LoraFile, network_metadata
from trainer.lora.layers import Layer, LoraLayer, Shape, plain_shape
from trainer.lora.low_rank import decomposed
from trainer.runs.events import EventSink

Method = Literal["sv_ratio", "sv_fro", "sv_cumulative"]
METHODS: tuple[Method, ...] = get_args(Method)
RESIZE_KEY = "lora_atelier_resize"
"""Metadata key of how a file was resized: JSON with the rank asked for and what was kept."""

_NO_CHANGE = 1e-6  # singular values up to here are a layer of zeros, as in sd-scripts
_LARGE_KERNEL = re.compile(r"_(conv|conv1|conv2|conv_in|conv_out|in_layers_2|out_layers_3|op|input_blocks_0_0|out_2)$")
_UNTRUE_AFTERWARDS = ("lora_adapter_metadata", "modelspec.hash_sha256")


@dataclass(frozen=True)
class Choice:
    """How many singular values of a layer are kept.

    Attributes:
        rank: the most for linear layers and 1x1 convolutions.
        conv_rank: the most for larger convolutions.
        dynamic: how the number is found within that; None keeps as many as allowed.
        param: what the method needs: see ``dynamic_rank``.
        like_kohya: ranks as sd-scripts finds them: see ``dynamic_rank``; and ``conv_rank`` for 1x1 convolutions too.
    """

    rank: int
    conv_rank: int
    dynamic: Method | None = None
    param: float | None = None
    like_kohya: bool = False

    def of(self, values: Tensor, shape: Shape) -> int:
        """The rank of a layer with these singular values, in falling order, for a weight of this shape."""
        is_conv = len(shape) == 4 if self.like_kohya else len(plain_shape(shape)) == 4
        most = min(self.conv_rank if is_conv else self.rank, len(values))
        if float(values[0]) <= _NO_CHANGE:
            return 1
        if self.dynamic is None or self.param is None:
            return most
        smaller = min(shape[0], math.prod(shape[1:]))
        return min(most, dynamic_rank(values, self.dynamic, self.param, smaller if self.like_kohya else None))


@dataclass(frozen=True)
class LayerReport:
    """What became of a layer.

    Attributes:
        module: its name.
        kind: what it was: ``LoRA``, ``DoRA``, ``LoHa`` ...
        rank_before: of its factors.
        rank: now.
        alpha: now.
        sum_kept: share of the sum of its singular values that is left.
        norm_kept: share of the Frobenius norm of its change that is left.
        ratio: its largest singular value next to the smallest one kept.
        norm: Frobenius norm of its whole change, alpha included.
    """

    module: str
    kind: str
    rank_before: int
    rank: int
    alpha: float
    sum_kept: float
    norm_kept: float
    ratio: float
    norm: float


def dynamic_rank(values: Tensor, method: Method, param: float, kohya_values: int | None = None) -> int:
    """How many singular values a method keeps, at least 1.

    - ``sv_ratio``: those larger than the largest one divided by ``param`` (1 or more).
    - ``sv_cumulative``: as few as sum up to the share ``param`` (above 0, up to 1) of all of them.
    - ``sv_fro``: as few as have the share ``param`` of the Frobenius norm.

    Source: sd-scripts' ``networks/resize_lora.py``, which then keeps one more than it found, found being at most all
    but one of the dense weight's values.

    Args:
        values: singular values in falling order.
        method: see above.
        param: see above.
        kohya_values: the smaller side of the weight, to find what sd-scripts finds; None for the definition.
    """
    if method == "sv_ratio":
        found = int((values > values[0] / param).sum())
    else:
        weights, share = (values, param) if method == "sv_cumulative" else (values.square(), param**2)
        shares = weights.cumsum(0) / weights.sum()
        found = int(torch.searchsorted(shares, torch.tensor(share, dtype=shares.dtype))) + 1
    if kohya_values is not None:
        found = max(1, min(found, kohya_values - 1)) + 1
    return max(1, min(found, len(values)))


def check_choice(rank: int, conv_rank: int | None, dynamic: str | None, param: float | None) -> Iterator[Problem]:
    """What is wrong with the numbers."""
    for name, value in (("rank", rank), ("conv_rank", conv_rank)):
        if value is not None and value < 1:
            yield Problem("resize.rank", f"{name}: {value} is not allowed; it is 1 or more.", "Give a rank.", name)
    if dynamic is not None and dynamic not in METHODS:
        yield Problem(
            "resize.dynamic", f"dynamic: {dynamic!r} is none of {', '.join(METHODS)}.", "Choose one.", "dynamic"
        )
    if dynamic is not None and param is None:
        yield Problem("resize.param", f"param: {dynamic} needs a number.", "Example: --param 0.9", "param")
    if dynamic is None and param is not None:
        hint = f"Choose one with --dynamic: {', '.join(METHODS)}."
        yield Problem("resize.param", "param: it has no meaning without a dynamic method.", hint, "param")
    if dynamic is not None and param is not None:
        fits = 1 <= param < math.inf if dynamic == "sv_ratio" else 0 < param <= 1
        if not fits:
            allowed = "1 or more" if dynamic == "sv_ratio" else "above 0 and up to 1"
            message = f"param: {param:g} is not allowed; for {dynamic} it is {allowed}."
            yield Problem("resize.param", message, "Change it.", "param")


def resize_lora(
    lora: LoraFile, choice: Choice, *, device: str | torch.device = "cpu", events: EventSink | None = None
) -> tuple[LoraFile, list[LayerReport]]:
    """The LoRA with as few singular values as chosen, and what was kept, layer by layer.

    A layer is never given more than its own rank: further singular values are zero.
    """
    layers: dict[str, Layer] = {}
    reports: list[LayerReport] = []
    for number, (module, layer) in enumerate(lora.layers.items()):
        layers[module], report = _resized(module, layer, choice, device)
        reports.append(report)
        if events is not None:
            events.emit("progress", what="resizing", done=number + 1, total=len(lora.layers))
    return LoraFile(layers, _metadata(lora, layers, choice, reports), lora.unknown), reports


def kept_norm(reports: list[LayerReport]) -> float:
    """The Frobenius norm of all changes that is left, next to the whole."""
    whole = sum(report.norm**2 for report in reports)
    return math.sqrt(sum((report.norm * report.norm_kept) ** 2 for report in reports) / whole) if whole else 1.0


def _resized(module: str, layer: Layer, choice: Choice, device: str | torch.device) -> tuple[LoraLayer, LayerReport]:
    found, shape, scale = _decomposed(module, layer, device)
    rank = choice.of(found.values, shape)
    values, norm_kept = found.values, found.kept(rank)
    total, last = float(values.sum()), float(values[rank - 1])
    up, down = (factor.float().cpu() for factor in found.factors(rank))
    resized = layer_of(up, down, shape, scale * rank, layer.magnitude)
    report = LayerReport(
        module=module,
        kind=layer.name,
        rank_before=layer.rank,
        rank=rank,
        alpha=resized.alpha,
        sum_kept=float(values[:rank].sum()) / total if total else 1.0,
        norm_kept=norm_kept,
        ratio=float(values[0]) / last if last else 1.0,
        norm=abs(scale) * math.sqrt(found.energy),
    )
    return resized, report


def _decomposed(module: str, layer: Layer, device: str | torch.device) -> tuple[Decomposition, Shape, float]:
    """The change without its strength decomposed, the weight's shape, and the strength."""
    if isinstance(layer, LoraLayer):
        up, down = (factor.to(device).flatten(1) for factor in (layer.up, layer.down))
        return of_product(up, down), layer.weight_shape, layer.scale
    return decomposed(layer), _true_shape(module, layer.weight_shape), 1.0


def _true_shape(module: str, shape: Shape) -> Shape:
    """LoHa and LoKr files tell a convolution's kernel by its layer's name only: all larger ones are 3x3."""
    if len(shape) == 2 and _LARGE_KERNEL.search(module) and shape[1] % 9 == 0:
        return (shape[0], shape[1] // 9, 3, 3)
    return shape


def _metadata(lora: LoraFile, layers: dict[str, Layer], choice: Choice, reports: list[LayerReport]) -> dict[str, str]:
    """The file's own, with true ranks and a note of what was done, worded as sd-scripts words it."""
    metadata = {key: value for key, value in lora.metadata.items() if key not in _UNTRUE_AFTERWARDS}
    metadata |= network_metadata(layers, None)
    before = max(report.rank_before for report in reports)
    if choice.dynamic is None:
        conv = "" if choice.rank == choice.conv_rank else f" (conv: {choice.conv_rank})"
        note = f"dimension is resized from {before} to {choice.rank}{conv}"
    else:
        note = f"Dynamic resize with {choice.dynamic}: {choice.param:g} from {before}"
    metadata["ss_training_comment"] = f"{note}; {lora.metadata.get('ss_training_comment', '')}".rstrip("; ")
    record: dict[str, Any] = {key: value for key, value in asdict(choice).items() if value not in (None, False)}
    metadata[RESIZE_KEY] = json.dumps(record | {"rank_before": before, "norm_kept": round(kept_norm(reports), 6)})
    return metadata

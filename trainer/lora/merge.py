"""Merging LoRAs with each other, by what they do to the weights.

The change that a set of LoRAs makes to a weight is ``sum(ratio * alpha / rank * up @ down)``. ``exact`` keeps it whole
by stacking the factors, ``svd`` keeps the best approximation of a given rank, ``kohya`` reproduces the file that
sd-scripts' ``merge_lora.py`` writes, whose effect is *not* that sum (0.5 of a LoRA comes out as 0.25 of it).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from trainer.errors import Problem, UserError
from trainer.lora.file import LoraFile, Precision, network_metadata
from trainer.lora.layers import LoraLayer, plain_shape

Mode = Literal["exact", "svd", "kohya"]
MODES: tuple[Mode, ...] = get_args(Mode)
MERGE_KEY = "lora_atelier_merge"
"""Metadata key of what was merged: JSON with files, ratios and mode."""

_SHARED_MODELSPEC = ("sai_model_spec", "architecture", "implementation", "resolution", "prediction_type")

Parts = list[tuple[LoraLayer, float]]


def merge_loras(
    loras: list[tuple[LoraFile, float]],
    mode: Mode = "exact",
    rank: int | None = None,
    *,
    names: list[str] | None = None,
) -> LoraFile:
    """One LoRA out of several with their ratios (any finite numbers).

    Args:
        loras: what to merge; ranks, alphas and sets of layers may differ.
        mode: see the module.
        rank: largest rank of the result; only for ``svd``, and needed there.
        names: file names for the result's metadata, one per LoRA.

    Raises UserError when the LoRAs do not fit together, or nothing would be left.
    """
    _check(loras, mode, rank)
    _check_kinds(loras, names)
    by_module = _by_module(loras, keep_zero=mode == "kohya")  # there the first one's alpha counts, ratio 0 or not
    _check_shapes(by_module)
    kept: list[float] = []
    combine: Callable[[Parts], LoraLayer]
    if mode == "kohya":
        _check_ranks(by_module)
        combine = _kohya
    elif mode == "svd":
        combine = _Svd(rank or 0, kept)
    else:
        combine = _exact
    layers = {module: combine(parts) for module, parts in sorted(by_module.items())}
    record: dict[str, Any] = {"mode": mode, "files": names or [], "ratios": [ratio for _, ratio in loras]}
    if kept:
        record["kept_energy"] = {"smallest": min(kept), "mean": sum(kept) / len(kept)}
    return LoraFile(layers, _metadata(loras, layers, record))


def widest_precision(loras: list[LoraFile]) -> Precision:
    """The number format that holds every value of these LoRAs."""
    layers = [layer for lora in loras for layer in lora.layers.values()]
    dtypes = {tensor.dtype for layer in layers for tensor in layer.tensors().values()}
    if dtypes <= {torch.float16}:
        return "fp16"
    return "bf16" if dtypes <= {torch.bfloat16} else "float"


def _check(loras: list[tuple[LoraFile, float]], mode: Mode, rank: int | None) -> None:
    if mode not in MODES:
        raise UserError(
            "merge.mode", f"mode: {mode!r} is not one of {', '.join(MODES)}.", "Choose one of them.", "mode"
        )
    if mode == "svd" and (rank is None or rank < 1):
        raise UserError("merge.rank", f"rank: {rank} is not allowed; svd needs 1 or more.", "Give a rank.", "rank")
    if mode != "svd" and rank is not None:
        raise UserError("merge.rank", f"rank: {mode} has no use for a rank.", "Leave it out, or choose svd.", "rank")
    if any(not math.isfinite(ratio) for _, ratio in loras):
        raise UserError("merge.ratio", "A ratio is not a finite number.", "Give numbers such as 0.8 or -1.", "lora")
    if not any(ratio for _, ratio in loras):
        raise UserError("merge.nothing", "There is no LoRA with a ratio other than 0.", "Raise a ratio.", "lora")
    bases = {version for lora, _ in loras if (version := lora.metadata.get("ss_base_model_version"))}
    if len(bases) > 1:
        listing = ", ".join(sorted(bases))
        raise UserError("merge.families", f"The LoRAs are for different models: {listing}.", "Merge within a family.")


def _check_kinds(loras: list[tuple[LoraFile, float]], names: list[str] | None) -> None:
    """Refuse what has no sum in the form of a LoRA: all problems at once."""
    problems = []
    for number, (lora, _) in enumerate(loras):
        others = [kind for kind in lora.kinds if kind != "LoRA"]
        if not others:
            continue
        name, needs_base = names[number] if names else f"LoRA {number + 1}", any("DoRA" in kind for kind in others)
        reason = "what it does depends on the base model" if needs_base else "it has no factors that could be added"
        message = f"{name} is a {' and '.join(others)}: {reason}, so it cannot be merged into a LoRA."
        problems.append(Problem("merge.kind", message, "Merge it into a model: choose the base.", "lora"))
    if problems:
        raise UserError.many(problems)


def _by_module(loras: list[tuple[LoraFile, float]], *, keep_zero: bool) -> dict[str, Parts]:
    """The layers to add up for each module; a ratio of 0 takes no part unless ``keep_zero``."""
    by_module: dict[str, Parts] = {}
    for lora, ratio in loras:
        for module, layer in lora.layers.items():
            if (ratio or keep_zero) and isinstance(layer, LoraLayer):
                by_module.setdefault(module, []).append((layer, ratio))
    return by_module


def _check_shapes(by_module: dict[str, Parts]) -> None:
    """Refuse layers that change weights of different shapes, and make 1x1 convolutions and linear layers alike."""
    wrong = []
    for module, parts in by_module.items():
        shapes = {layer.weight_shape for layer, _ in parts}
        if len(shapes) == 1:
            continue
        if len({plain_shape(shape) for shape in shapes}) == 1:
            by_module[module] = [(_as_conv(layer), ratio) for layer, ratio in parts]
        else:
            wrong.append(f"{module} ({' and '.join('x'.join(map(str, shape)) for shape in sorted(shapes))})")
    if wrong:
        message = f"The LoRAs are for different models: {len(wrong)} layers differ in shape, such as {wrong[0]}."
        raise UserError("merge.shapes", message, "Merge LoRAs made for the same base model.")


def _check_ranks(by_module: dict[str, Parts]) -> None:
    for module, parts in by_module.items():
        ranks = sorted({layer.rank for layer, _ in parts})
        if len(ranks) > 1:
            message = f"mode: kohya cannot merge different ranks ({module} has {' and '.join(map(str, ranks))})."
            raise UserError("merge.ranks", message, "Choose exact or svd.", "mode")


def _as_conv(layer: LoraLayer) -> LoraLayer:
    if layer.is_conv:
        return layer
    return LoraLayer(layer.down[:, :, None, None], layer.up[:, :, None, None], layer.alpha)


def _exact(parts: Parts) -> LoraLayer:
    """Stack the factors. The largest part keeps its numbers as they are, so that little is lost in fp16."""
    scales = [ratio * layer.scale for layer, ratio in parts]
    largest = max(abs(scale) for scale in scales) or 1.0
    down = torch.cat([layer.down.float() for layer, _ in parts], dim=0)
    up = torch.cat(
        [layer.up.float() * (scale / largest) for (layer, _), scale in zip(parts, scales, strict=True)], dim=1
    )
    return LoraLayer(down, up, alpha=largest * down.shape[0])


@dataclass(frozen=True)
class _Svd:
    """The best approximation of the sum with a given rank (Eckart and Young 1936)."""

    rank: int
    kept: list[float]
    """For each layer done, the share of the sum's squared norm that was kept."""

    def __call__(self, parts: Parts) -> LoraLayer:
        """Truncate the sum's SVD, found through the small core of the stacked factors.

        With ``up = Qu Ru`` and ``down^T = Qd Rd`` the sum is ``Qu (Ru Rd^T) Qd^T``: only a matrix as large as the ranks
        together is decomposed, never one of the weight's size.
        """
        up = torch.cat([layer.up.double().flatten(1) * (ratio * layer.scale) for layer, ratio in parts], dim=1)
        down = torch.cat([layer.down.double().flatten(1) for layer, _ in parts], dim=0)
        up_basis, up_core = torch.linalg.qr(up)
        down_basis, down_core = torch.linalg.qr(down.T)
        left, values, right = torch.linalg.svd(up_core @ down_core.T)
        rank = min(self.rank, len(values))
        energy = float(values.square().sum())
        self.kept.append(float(values[:rank].square().sum()) / energy if energy else 1.0)
        root = values[:rank].sqrt()
        shape = parts[0][0].down.shape[1:]
        new_up = (up_basis @ left[:, :rank] * root).float()
        new_down = (root[:, None] * (right[:rank] @ down_basis.T)).float().reshape(rank, *shape)
        return LoraLayer(new_down, _column(new_up, new_down), alpha=float(rank))


def _column(up: Tensor, down: Tensor) -> Tensor:
    """``up`` (out, rank) in the form that goes with ``down``: with a 1x1 kernel for a convolution."""
    return up[:, :, None, None] if down.ndim == 4 else up


def _kohya(parts: Parts) -> LoraLayer:
    """sd-scripts' ``networks/merge_lora.py``: both factors are scaled, then summed factor by factor.

    ``scale = sqrt(alpha / first alpha) * ratio``, for ``up`` its absolute value; the first alpha stays.
    """
    alpha = parts[0][0].alpha
    down = up = None
    for layer, ratio in parts:
        if layer.alpha * alpha <= 0:
            raise UserError("merge.alpha", "mode: kohya cannot merge alphas of 0 or below.", "Choose exact.", "mode")
        scale = math.sqrt(layer.alpha / alpha) * ratio
        scaled_down, scaled_up = layer.down.float() * scale, layer.up.float() * abs(scale)
        down = scaled_down if down is None else down + scaled_down
        up = scaled_up if up is None else up + scaled_up
    if down is None or up is None:
        raise ValueError("a module without layers cannot be merged")
    return LoraLayer(down, up, alpha)


def _metadata(
    loras: list[tuple[LoraFile, float]], layers: dict[str, LoraLayer], record: dict[str, Any]
) -> dict[str, str]:
    """What the merged file says of itself: what its sources agree on, their trigger words, and where it is from."""
    sources = [lora.metadata for lora, _ in loras]
    base = next((version for source in sources if (version := source.get("ss_base_model_version"))), None)
    metadata = network_metadata(layers, base)
    for key in (f"modelspec.{name}" for name in _SHARED_MODELSPEC):
        values = {source[key] for source in sources if key in source}
        if len(values) == 1:
            metadata[key] = values.pop()
    triggers = [trigger for source in sources if (trigger := source.get("modelspec.trigger_phrase"))]
    if triggers:
        metadata["modelspec.trigger_phrase"] = ", ".join(dict.fromkeys(triggers))
    if record["files"]:
        metadata["modelspec.merged_from"] = ", ".join(record["files"])
    metadata[MERGE_KEY] = json.dumps(record, ensure_ascii=False)
    return metadata

"""From the tensors of one layer in a file to the layer, with a check that they fit together."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from trainer.errors import UserError
from trainer.lora.keys import Role
from trainer.lora.layers import Layer, LohaLayer, LokrLayer, LoraLayer

LARGEST_WEIGHT = 1 << 27
"""Numbers in the largest weight that is taken for one: the token table of T5-XXL has 131 million."""
LARGEST_RANK = 1 << 14
"""Far above what is trained, for LoRAs that were merged of many."""

Refusal = Callable[[str], UserError]
Tensors = dict[Role, Tensor]


def build_layer(tensors: Tensors, alpha_of: Callable[[int], float], refuse: Refusal) -> Layer:
    """The layer that these tensors make.

    Args:
        tensors: by their role.
        alpha_of: rank to alpha, for a layer whose alpha is not among the tensors.
        refuse: makes the error for tensors that do not fit together, from what is wrong.
    """
    _refuse_absurd(tensors, refuse)
    if any(role.startswith("hada_") for role in tensors):
        return _loha(tensors, alpha_of, refuse)
    if any(role.startswith("lokr_") for role in tensors):
        return _lokr(tensors, alpha_of, refuse)
    return _lora(tensors, alpha_of, refuse)


def _refuse_absurd(tensors: Tensors, refuse: Refusal) -> None:
    """Refuse what has no place in a layer, or would make a small file fill the memory when its change is computed."""
    for role, tensor in tensors.items():
        if not tensor.numel():
            raise refuse(f"has an empty {role} part")
        if role != "alpha" and not (2 <= tensor.ndim <= 4 or role == "magnitude"):
            raise refuse(f"has a {role} part of shape {tuple(tensor.shape)}")


def _refuse_large(shape: Sequence[int], rank: int, refuse: Refusal) -> None:
    """Refuse a change, or a product on the way to it, of more numbers than any model's layer has."""
    if math.prod(shape) > LARGEST_WEIGHT or rank * math.prod(shape[1:]) > LARGEST_WEIGHT or rank > LARGEST_RANK:
        raise refuse(f"of rank {rank} changes a weight of {'x'.join(map(str, shape))}: no model has such a layer")


def _lora(tensors: Tensors, alpha_of: Callable[[int], float], refuse: Refusal) -> LoraLayer:
    down, up = tensors.get("down"), tensors.get("up")
    if down is None or up is None:
        raise refuse(f"has no {'up' if up is None else 'down'} part")
    mid = tensors.get("mid")
    if mid is not None:
        down = _with_mid(down, mid, refuse)
    _refuse_large((up.shape[0], *down.shape[1:]), down.shape[0], refuse)
    fits = down.ndim in (2, 4) and up.ndim in (2, 4) and up.shape[1] == down.shape[0] and down.numel() and up.numel()
    if not fits or (up.ndim == 4 and up.shape[2:] != (1, 1)):
        raise refuse(f"has shapes {tuple(down.shape)} and {tuple(up.shape)}, which do not fit")
    if up.ndim != down.ndim:
        up = up.reshape(*up.shape[:2], *([1, 1] if down.ndim == 4 else []))
    shape = (up.shape[0], *down.shape[1:])
    return LoraLayer(down, up, _alpha(tensors, alpha_of, down.shape[0], refuse), _magnitude(tensors, shape, refuse))


def _with_mid(down: Tensor, mid: Tensor, refuse: Refusal) -> Tensor:
    """The down part of a convolution that was split in three (1x1, kxk, 1x1), made one again: exact."""
    if mid.ndim != 4 or down.ndim != 4 or down.shape[2:] != (1, 1) or mid.shape[1] != down.shape[0]:
        raise refuse(f"has a mid part {tuple(mid.shape)} that does not fit {tuple(down.shape)}")
    _refuse_large((mid.shape[0], down.shape[1], *mid.shape[2:]), mid.shape[1], refuse)
    composed = torch.einsum("rskl,si->rikl", mid.float(), down[:, :, 0, 0].float())
    return composed.to(torch.promote_types(mid.dtype, torch.float32))


def _loha(tensors: Tensors, alpha_of: Callable[[int], float], refuse: Refusal) -> LohaLayer:
    factors = [tensors.get(role) for role in ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")]
    first_left, first_right, second_left, second_right = factors
    if first_left is None or first_right is None or second_left is None or second_right is None:
        raise refuse("lacks one of hada_w1_a, hada_w1_b, hada_w2_a, hada_w2_b")
    core, second_core = tensors.get("hada_t1"), tensors.get("hada_t2")
    if (core is None) != (second_core is None):
        raise refuse("has only one of hada_t1 and hada_t2")
    for left, right, middle in ((first_left, first_right, core), (second_left, second_right, second_core)):
        _check_product(left, right, middle, refuse)
        _refuse_large(_product_shape(left, right, middle), right.shape[0], refuse)
    layer = LohaLayer(first_left, first_right, second_left, second_right, 1.0, core, second_core)
    other = LohaLayer(second_left, second_right, first_left, first_right, 1.0, second_core, core)
    if layer.weight_shape != other.weight_shape:
        raise refuse(f"has parts of shape {layer.weight_shape} and {other.weight_shape}, which do not fit")
    alpha = _alpha(tensors, alpha_of, layer.rank, refuse)
    magnitude = _magnitude(tensors, layer.weight_shape, refuse)
    return LohaLayer(first_left, first_right, second_left, second_right, alpha, core, second_core, magnitude)


def _lokr(tensors: Tensors, alpha_of: Callable[[int], float], refuse: Refusal) -> LokrLayer:
    core = tensors.get("lokr_t2")
    for number, middle in (("1", None), ("2", core)):
        whole, left, right = _lokr_part(tensors, number)
        if whole is None and (left is None or right is None):
            raise refuse(f"has neither lokr_w{number} nor both of its factors")
        if whole is not None and (whole.ndim not in (2, 4) or (number == "1" and whole.ndim != 2)):
            raise refuse(f"has a lokr_w{number} of shape {tuple(whole.shape)}")
        if whole is None and left is not None and right is not None:
            _check_product(left, right, middle, refuse)
            _refuse_large(_product_shape(left, right, middle), right.shape[0], refuse)
    parts: dict[str, Tensor] = {role: tensor for role, tensor in tensors.items() if role.startswith("lokr_")}
    for number in ("1", "2"):  # a file with a whole matrix and factors: the matrix counts, as in LyCORIS
        if f"lokr_w{number}" in parts:
            parts = {role: value for role, value in parts.items() if not role.startswith(f"lokr_w{number}_")}
    layer = LokrLayer(1.0, **parts)
    _refuse_large(layer.weight_shape, layer.rank, refuse)
    alpha = _alpha(tensors, alpha_of, layer.rank, refuse)
    return LokrLayer(alpha, **parts, magnitude=_magnitude(tensors, layer.weight_shape, refuse))


def _lokr_part(tensors: Tensors, number: str) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    if number == "1":
        return tensors.get("lokr_w1"), tensors.get("lokr_w1_a"), tensors.get("lokr_w1_b")
    return tensors.get("lokr_w2"), tensors.get("lokr_w2_a"), tensors.get("lokr_w2_b")


def _check_product(left: Tensor, right: Tensor, core: Tensor | None, refuse: Refusal) -> None:
    rank = left.shape[0] if core is not None else left.shape[-1]
    fits = left.ndim == right.ndim == 2 and right.shape[0] == rank and left.numel() and right.numel()
    if core is not None:
        fits = fits and core.ndim == 4 and core.shape[:2] == (left.shape[0], right.shape[0])
    if not fits:
        shapes = " and ".join(str(tuple(each.shape)) for each in (left, right, core) if each is not None)
        raise refuse(f"has shapes {shapes}, which do not fit")


def _product_shape(left: Tensor, right: Tensor, core: Tensor | None) -> tuple[int, ...]:
    """The shape of ``factor_product``, without computing it."""
    return (left.shape[0], right.shape[1]) if core is None else (left.shape[1], right.shape[1], *core.shape[2:])


def _alpha(tensors: Tensors, alpha_of: Callable[[int], float], rank: int, refuse: Refusal) -> float:
    alpha = tensors.get("alpha")
    if alpha is None:
        return alpha_of(rank)
    if alpha.numel() != 1:
        raise refuse(f"has an alpha of {alpha.numel()} values")
    return float(alpha)


def _magnitude(tensors: Tensors, shape: tuple[int, ...], refuse: Refusal) -> Tensor | None:
    """DoRA's magnitude as (1, in, ...) or (out, 1, ...); PEFT's is a row with a number for each output."""
    magnitude = tensors.get("dora_scale")
    if magnitude is None and "magnitude" in tensors:
        magnitude = tensors["magnitude"].flatten()
        magnitude = magnitude.reshape(-1, *[1] * (len(shape) - 1))
    if magnitude is None:
        return None
    sizes = tuple(magnitude.shape)
    inputs = (1, shape[1])
    fits = magnitude.ndim in (2, 4) and magnitude.numel() and sizes[2:] in ((), (1, 1))
    if len(shape) == 2 and magnitude.ndim == 4:  # a flattened convolution does not tell its number of inputs
        fits = fits and (sizes[:2] == (shape[0], 1) or (sizes[0] == 1 and shape[1] % sizes[1] == 0))
    else:
        fits = fits and sizes[:2] in ((shape[0], 1), inputs)
    if not fits:
        raise refuse(f"has a magnitude of shape {sizes}, which does not fit a weight of {shape}")
    return magnitude

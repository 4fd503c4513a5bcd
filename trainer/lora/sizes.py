"""How large adapters are, without torch: for the check before the start, and for the layers themselves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

Kind = Literal["lora", "dora", "loha", "lokr"]


def kronecker_sides(size: int, factor: int) -> tuple[int, int]:
    """A layer's side as a product, the smaller first: LyCORIS' ``factorization``.

    ``factor`` bounds the smaller one; -1 asks for two as near to each other as can be. 128 is 8 x 16, with 4 it is
    4 x 32; 127 is 1 x 127.
    """
    if factor > 0 and size % factor == 0:
        return min(factor, size // factor), max(factor, size // factor)
    largest = math.isqrt(size) if factor < 0 else min(factor, math.isqrt(size))
    smaller = next(side for side in range(largest, 0, -1) if size % side == 0)
    return smaller, size // smaller


def second_is_whole(shape: Sequence[int], rank: int, factor: int) -> bool:
    """Whether a LoKr's second matrix is kept whole: where factors of this rank would be no smaller (as LyCORIS)."""
    return rank >= whole_from_rank(shape, factor)


def whole_from_rank(shape: Sequence[int], factor: int) -> int:
    """The lowest rank at which a LoKr's second matrix is kept whole."""
    return math.ceil(max(kronecker_sides(shape[0], factor)[1], kronecker_sides(shape[1], factor)[1]) / 2)


def adapter_parameters(kind: Kind, shape: Sequence[int], rank: int, factor: int) -> int:
    """Parameters of an adapter of a layer whose weight has this shape. ``factor`` is LoKr's."""
    outputs, inputs, kernel = shape[0], shape[1], math.prod(shape[2:])
    lora = rank * (outputs + inputs * kernel)
    if kind == "loha":
        return 2 * lora
    if kind == "dora":
        return lora + inputs
    if kind == "lora":
        return lora
    (out_1, out_2), (in_1, in_2) = kronecker_sides(outputs, factor), kronecker_sides(inputs, factor)
    whole = second_is_whole(shape, rank, factor)
    return out_1 * in_1 + (out_2 * in_2 * kernel if whole else rank * (out_2 + in_2 * kernel))

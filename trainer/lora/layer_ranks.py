"""Which layers get an adapter, and of what rank and alpha: one rule for training and, without torch, for the plan.

Patterns are searched for in a layer's name with its part in front, ``unet.mid_block.attentions.0.proj_in``.
"""

from __future__ import annotations

import math
import re
from typing import TypeVar

from trainer.config import LoraSettings

Number = TypeVar("Number", int, float)


def layer_rank(full_name: str, settings: LoraSettings, *, large_conv: bool) -> int:
    """The rank of a layer of the target's kind, or of a convolution larger than 1x1; 0 for one to leave alone.

    ``block_ranks`` reaches such a convolution where ``conv_rank`` trains them, where the target is ``full``, and where
    the pattern itself speaks of ``conv``.
    """
    included = not settings.include or any(re.search(pattern, full_name) for pattern in settings.include)
    if not included or any(re.search(pattern, full_name) for pattern in settings.exclude):
        return 0
    patterns = settings.block_ranks
    if large_conv and not settings.conv_rank and settings.target != "full":
        patterns = {pattern: rank for pattern, rank in patterns.items() if "conv" in pattern}
    own = first_match(patterns, full_name)
    return own if own is not None else settings.conv_rank if large_conv else settings.rank


def layer_alpha(rank: int, settings: LoraSettings, *, large_conv: bool) -> float:
    """Alpha of a layer of this rank: where ``block_ranks`` changes the rank, the strength alpha / rank stays.

    Convolutions have strength 1 without ``conv_alpha``, and ``conv_alpha`` itself where no ``conv_rank`` is beside it.
    With ``rank_stabilized`` it is ``alpha * sqrt(rank)`` of the alpha in the settings, as readers divide by the rank
    (2312.03732, theorem 3.2).
    """
    usual_rank = (settings.conv_rank or rank) if large_conv else settings.rank
    alpha = settings.alpha
    if large_conv:
        alpha = float(usual_rank) if settings.conv_alpha is None else settings.conv_alpha
    return alpha * math.sqrt(rank) if settings.rank_stabilized else alpha * (rank / usual_rank)


def first_match(patterns: dict[str, Number], full_name: str) -> Number | None:
    """The value of the first pattern that is found in a name."""
    return next((value for pattern, value in patterns.items() if re.search(pattern, full_name)), None)

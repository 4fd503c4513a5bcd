"""Why a LoRA file cannot be gone on with, in words that say what to set instead."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from trainer.errors import Problem, UserError
from trainer.lora.layers import Layer, LokrLayer, plain_shape
from trainer.lora.sizes import kronecker_sides, whole_from_rank

FIELD = "lora.init_from"
MERGE = "Put it under lora.merge_before_training instead, and train on top of it."
TYPES = {"LoRA": "lora", "DoRA": "dora", "LoHa": "loha", "LoKr": "lokr"}


@dataclass(frozen=True)
class Pair:
    """A layer of the file and the adapter that should take it.

    Attributes:
        name: the layer's.
        saved: as it is in the file.
        wanted: the adapter's.
        shape: of the layer's weight.
        fits: whether the adapter could take it.
    """

    name: str
    saved: Layer
    wanted: Layer
    shape: Sequence[int]
    fits: bool


def misfit(file_name: str, pairs: list[Pair]) -> UserError:
    """The error for a file of which not all layers fit: one problem for each reason, with the first such layer."""
    factor = _factor_of([pair for pair in pairs if isinstance(pair.saved, LokrLayer)])
    reasons: dict[str, tuple[str, str]] = {}
    for pair in (pair for pair in pairs if not pair.fits):
        kind, message, hint = _reason(pair, pairs, factor)
        reasons.setdefault(kind, (message, hint))
    problems = [Problem(FIELD, f"{FIELD}: {file_name} {told}", hint, FIELD) for told, hint in reasons.values()]
    return UserError.many(problems)


def _reason(pair: Pair, pairs: Iterable[Pair], factor: int | None) -> tuple[str, str, str]:
    """What is wrong, so that like problems are told once; the message after the file's name; and what to do."""
    name, saved, wanted = pair.name, pair.saved, pair.wanted
    if saved.name != wanted.name:
        hint = f"Set lora.type to {TYPES[saved.name]}." if saved.name in TYPES else MERGE
        return "kind", f"is a {saved.name}, the settings have {wanted.name}.", hint
    if not saved.fits(tuple(pair.shape)):
        message = f"has another size for {name} than this model."
        return "size", message, "Choose a LoRA for the same base model."
    if isinstance(saved, LokrLayer) and isinstance(wanted, LokrLayer):
        return _lokr_reason(pair, pairs, factor)
    large = len(plain_shape(tuple(pair.shape))) == 4
    field = "lora.conv_rank" if large else "lora.rank"
    message = f"has rank {saved.rank} for {name}, the settings have {wanted.rank}."
    ranks = {other.saved.rank for other in pairs if (len(plain_shape(tuple(other.shape))) == 4) == large}
    if len(ranks) > 1:
        most = f"It has several ranks ({', '.join(map(str, sorted(ranks)))})"
        return field, message, f"{most}: give them by lora.block_ranks, or resize it to one rank."
    return field, message, f"Set {field} to {saved.rank}."


def _lokr_reason(pair: Pair, pairs: Iterable[Pair], factor: int | None) -> tuple[str, str, str]:
    saved, wanted = pair.saved, pair.wanted
    assert isinstance(saved, LokrLayer) and isinstance(wanted, LokrLayer)
    if saved.sides != wanted.sides:
        message = f"has a first matrix of {_times(saved.sides)} for {pair.name}, the settings have "
        message += f"{_times(wanted.sides)}."
        return "factor", message, MERGE if factor is None else f"Set lora.lokr_factor to {factor}."
    if saved.lokr_w2 is not None:
        whole = [other for other in pairs if isinstance(other.saved, LokrLayer) and other.saved.lokr_w2 is not None]
        rank = max(whole_from_rank(other.shape, factor if factor is not None else -1) for other in whole)
        message = f"has the second matrix of {pair.name} whole, the settings have rank {wanted.rank}."
        return "whole", message, f"Set lora.rank, and lora.conv_rank for convolutions, to {rank} or more."
    field = "lora.conv_rank" if len(plain_shape(tuple(pair.shape))) == 4 else "lora.rank"
    message = f"has rank {saved.rank} for {pair.name}, the settings have {wanted.rank}."
    return field, message, f"Set {field} to {saved.rank}."


def _factor_of(pairs: list[Pair]) -> int | None:
    """The ``lokr_factor`` that gives all these layers the sides they have; None where there is none."""
    sides = [pair.saved.sides for pair in pairs if isinstance(pair.saved, LokrLayer)]
    for factor in (-1, max((max(pair) for pair in sides), default=-1)):
        wanted = [tuple(kronecker_sides(size, factor)[0] for size in pair.shape[:2]) for pair in pairs]
        if wanted == sides:
            return factor
    return None


def _times(sides: tuple[int, int]) -> str:
    return f"{sides[0]} x {sides[1]}"

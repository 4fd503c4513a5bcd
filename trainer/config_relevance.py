"""When a setting has an effect: conditions on other settings, declared beside the setting itself.

``setting(..., relevant=is_one_of("train.lr_scheduler", "polynomial"))``. The form leaves out what has no effect, and
says why where somebody looks for it. A condition reads plain values (as from YAML), right or wrong.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from trainer.config_allowed import listed


@dataclass(frozen=True)
class Condition:
    """One setting that another depends on.

    Attributes:
        field: dotted name; ``*`` stands for any entry of a list.
        wanted: ``set`` for anything but null, false, 0 and empty; ``empty`` for those; ``one of`` the values.
        values: those that ``one of`` allows.
    """

    field: str
    wanted: Literal["set", "empty", "one of"]
    values: tuple[Any, ...] = ()

    def holds(self, config: Mapping[str, Any]) -> bool:
        """Whether plain settings meet it."""
        found = list(_found(config, self.field.split(".")))
        if self.wanted == "one of":
            return any(value in self.values for value in found)
        return any(found) == (self.wanted == "set")

    def unmet(self, config: Mapping[str, Any]) -> list[Condition]:
        """What is in the way: the condition itself, or nothing."""
        return [] if self.holds(config) else [self]

    def conditions(self) -> Iterator[Condition]:
        """The condition itself."""
        yield self

    def words(self) -> str:
        """As told where no values are known: `` `lora.type` is `lora` or `dora` ``."""
        states = {"set": "set", "empty": "not set"}
        return f"`{self.field}` is {states.get(self.wanted) or listed(self.values)}"

    def __and__(self, other: Relevance) -> Relevance:
        return Combined("all", (self, other))

    def __or__(self, other: Relevance) -> Relevance:
        return Combined("any", (self, other))


@dataclass(frozen=True)
class Combined:
    """Several conditions of which all, or any, must hold."""

    how: Literal["all", "any"]
    parts: tuple[Relevance, ...]

    def holds(self, config: Mapping[str, Any]) -> bool:
        """Whether plain settings meet it."""
        return (all if self.how == "all" else any)(part.holds(config) for part in self.parts)

    def unmet(self, config: Mapping[str, Any]) -> list[Condition]:
        """What is in the way; of several ways to meet it, all that are not met."""
        return [] if self.holds(config) else [lack for part in self.parts for lack in part.unmet(config)]

    def conditions(self) -> Iterator[Condition]:
        """Every single condition in it."""
        for part in self.parts:
            yield from part.conditions()

    def words(self) -> str:
        """All of it, with brackets around what belongs together."""
        apart = [isinstance(part, Combined) and part.how != self.how for part in self.parts]
        told = [f"({part.words()})" if alone else part.words() for part, alone in zip(self.parts, apart, strict=True)]
        return (" and " if self.how == "all" else " or ").join(told)

    def __and__(self, other: Relevance) -> Relevance:
        return Combined("all", (self, other))

    def __or__(self, other: Relevance) -> Relevance:
        return Combined("any", (self, other))


Relevance = Condition | Combined


def is_set(field: str) -> Condition:
    """The other setting is on, given, or not 0."""
    return Condition(field, "set")


def is_empty(field: str) -> Condition:
    """The other setting is off, not given, or 0."""
    return Condition(field, "empty")


def is_one_of(field: str, *values: Any) -> Condition:
    """The other setting has one of these values."""
    return Condition(field, "one of", values)


def _found(value: Any, keys: Sequence[str]) -> Iterator[Any]:
    if not keys:
        yield value
    elif keys[0] == "*":
        for entry in value if isinstance(value, list) else []:
            yield from _found(entry, keys[1:])
    elif isinstance(value, Mapping) and keys[0] in value:
        yield from _found(value[keys[0]], keys[1:])

"""Optimizers and learning rate schedules by the names that other trainers have for them."""

from __future__ import annotations

from typing import Any, NamedTuple

from trainer.config import Optimizer
from trainer.imports import values
from trainer.imports.draft import Draft
from trainer.optimizer_classes import OPTIMIZERS

CUSTOM_NOTE = "a class of its own: it is loaded once you allow it under Settings"


class Choice(NamedTuple):
    """An optimizer of ours, or a class, with arguments that the other trainer always gives it."""

    optimizer: Optimizer
    path: str = ""
    arguments: dict[str, Any] = {}  # noqa: RUF012 - never changed
    note: str = ""


def custom(path: str, arguments: dict[str, Any] | None = None) -> Choice:
    """The class ``path``, by our name for it where it has one."""
    known = next((name for name, source in OPTIMIZERS.items() if source.path == path), None)
    if known is not None:
        return Choice(known, arguments=arguments or {})
    return Choice("custom", path, arguments or {}, CUSTOM_NOTE)


def put_optimizer(draft: Draft, choice: Choice, arguments: dict[str, Any], *keys: str, argument_key: str) -> None:
    """Set the optimizer and its arguments; those of the file before those that the other trainer gives by itself.

    Args:
        draft: to put it into.
        choice: the optimizer.
        arguments: the file's own.
        keys: of the optimizer's name in the file.
        argument_key: of its arguments; empty where they have keys of their own, which the caller tells.
    """
    draft.put("train.optimizer", choice.optimizer, *keys, note=choice.note)
    if choice.path:
        draft.put("train.optimizer_class", choice.path, *keys, note=choice.note)
    merged = choice.arguments | arguments
    if merged:
        draft.put("train.optimizer_args", merged, *([argument_key] if argument_key else keys[:1]))


def has_no_schedule(draft: Draft) -> bool:
    """Whether the optimizer that was put is schedule-free; its own warm-up, if any, is an argument."""
    train = draft.config["train"]
    return train["optimizer"] == "schedule_free_adamw" or "ScheduleFree" in train.get("optimizer_class", "")


def typed(arguments: dict[str, str]) -> dict[str, Any]:
    """Arguments as text turned into numbers, true and false, and lists."""
    return {key: values.literal(text) for key, text in arguments.items()}

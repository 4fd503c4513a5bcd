"""Optimizers and learning rate schedules by the names that other trainers have for them."""

from __future__ import annotations

from typing import Any, NamedTuple

from trainer.config import Optimizer
from trainer.config_training import OWN_RATE
from trainer.imports import values
from trainer.imports.draft import Draft
from trainer.optimizer_classes import OPTIMIZERS

CUSTOM_NOTE = "a class of its own: it is loaded once you allow it under Settings"
ONE_RATE_NOTE = "this optimizer finds one rate for all parts, and stops at several there, too"


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


def has_one_rate(draft: Draft) -> bool:
    """Whether the optimizer that was put finds a rate for all parts together, and refuses several."""
    train = draft.config["train"]
    return train["optimizer"] in OWN_RATE or train.get("optimizer_class", "").startswith("dadaptation.")


def keep_one_rate(draft: Draft) -> None:
    """Take back what would give parts rates of their own, where the optimizer refuses that. A rate of 0 is allowed."""
    if not has_one_rate(draft):
        return
    train, lora = draft.config["train"], draft.config["lora"]
    main, text = train["learning_rate"], train.get("text_encoder_learning_rate")
    if text and main and text != main:
        del train["text_encoder_learning_rate"]
        draft.move_to_lost("train.text_encoder_learning_rate", f"{ONE_RATE_NOTE}; that of the UNet holds")
    if train.get("loraplus_lr_ratio", 1.0) != 1.0:
        del train["loraplus_lr_ratio"]
        draft.move_to_lost("train.loraplus_lr_ratio", ONE_RATE_NOTE)
    if any(rate not in (0, 1) for rate in lora.get("block_lrs", {}).values()):
        del lora["block_lrs"]
        draft.move_to_lost("lora.block_lrs", ONE_RATE_NOTE)


def typed(arguments: dict[str, str]) -> dict[str, Any]:
    """Arguments as text turned into numbers, true and false, and lists."""
    return {key: values.literal(text) for key, text in arguments.items()}

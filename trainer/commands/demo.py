"""``trainer demo``: the whole program on the built-in model, with a picture to judge by."""

from __future__ import annotations

import argparse
from typing import Any

from trainer.commands.arguments import add_workspace, workspace_of
from trainer.runs.events import EventSink


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which concept, and where."""
    parser.add_argument("--concept", choices=["style", "character"], default="style", help="what to teach the model")
    add_workspace(parser)


def run(args: argparse.Namespace, events: EventSink) -> dict[str, Any]:
    """Train the demo and judge it."""
    from trainer.demo.showcase import show

    return vars(show(args.concept, workspace_of(args), events))


def describe(answer: dict[str, Any]) -> str:
    """The shares before and after, and where the results lie."""
    return (
        f"Pictures that show it: {answer['score_before']:.0%} before, {answer['score_after']:.0%} after, "
        f"{answer['score_unprompted']:.0%} without the trigger words.\n"
        f"Before and after: {answer['picture']}\n"
        f"LoRA:             {answer['lora']}\n"
        f"Trained in {answer['train_seconds']:.0f} s, {answer['total_seconds']:.0f} s in all."
    )

"""``trainer studio``: the process behind live previews and the Generate tab; the page starts it when it needs it."""

from __future__ import annotations

import argparse
from typing import Any

from trainer.commands.arguments import add_workspace, workspace_of
from trainer.runs.events import EventSink


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The workspace and when to leave."""
    add_workspace(parser)
    parser.add_argument("--idle-minutes", type=float, required=True, help="end after this long without a request")


def run(args: argparse.Namespace, events: EventSink) -> dict[str, Any]:
    """Answer requests until there have been none for a while."""
    from trainer.devices import pick_device
    from trainer.studio import Studio
    from trainer.studio_server import serve

    return {"served": serve(Studio(workspace_of(args), args.idle_minutes), pick_device())}


def describe(answer: dict[str, Any]) -> str:
    """Why it ended."""
    return "ended after being idle" if answer["served"] else "another process is this workspace's studio"

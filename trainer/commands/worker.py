"""``trainer worker``: run the queued runs of one device; started by the program itself when runs are queued."""

from __future__ import annotations

import argparse
from typing import Any

from trainer.commands.arguments import add_workspace, workspace_of
from trainer.runs.events import EventSink
from trainer.runs.gpus import default_device
from trainer.runs.worker import IDLE_SECONDS, work


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The device and when to leave."""
    add_workspace(parser)
    parser.add_argument("--device", default=None, help="cpu, cuda:0, cuda:1 ...")
    parser.add_argument("--idle-seconds", type=float, default=IDLE_SECONDS, help="end when nothing was queued so long")


def run(args: argparse.Namespace, events: EventSink) -> dict[str, Any]:
    """Work until there is nothing more to do."""
    device = args.device or default_device()
    return {"device": device, "runs": work(workspace_of(args), device, events, idle_seconds=args.idle_seconds)}


def describe(answer: dict[str, Any]) -> str:
    """How many runs were worked on."""
    return f"{len(answer['runs'])} runs on {answer['device']}."

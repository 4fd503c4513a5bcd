"""``trainer spare``: be loaded, and train the run that is told on the standard input; a worker starts it."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from trainer.commands import resume
from trainer.commands.arguments import add_workspace
from trainer.loading import load_train
from trainer.runs.events import EventSink
from trainer.runs.spare import Order


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The workspace, which tells one such process from another."""
    add_workspace(parser)


def run(args: argparse.Namespace, events: EventSink) -> dict[str, Any] | None:
    """Import everything, wait, and go on as ``trainer resume``. None when the worker has gone without an order."""
    load_train()
    events.emit("state", state="loaded")
    order = wait_for_order()
    if order is None:
        return None
    from trainer.__main__ import command_parser

    return resume.run(command_parser("resume", resume).parse_args(order.arguments), events)


def describe(answer: dict[str, Any]) -> str:
    """What became of the run."""
    return resume.describe(answer)


def wait_for_order() -> Order | None:
    """The order once it comes: from then on the output goes to its log, and the standard input is empty."""
    order = Order.read(sys.stdin)
    if order is not None:
        _write_to(Path(order.log))
    return order


def _write_to(log: Path) -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    with log.open("ab") as file, Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)

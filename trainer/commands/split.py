"""``split DIR``: split validation pictures off a dataset, or bring them back."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from trainer.commands.arguments import add_workspace, workspace_of
from trainer.curation.edit_log import EditLog
from trainer.curation.splitting import bring_back, split_off
from trainer.runs.events import EventSink


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The folder, and how many pictures."""
    add = parser.add_argument
    add("folder", type=Path, metavar="DIR", help="folder of pictures")
    how_many = parser.add_mutually_exclusive_group(required=True)
    how_many.add_argument("--share", type=float, metavar="X", help="share of the pictures, such as 0.1")
    how_many.add_argument("--count", type=int, metavar="N", help="number of pictures")
    how_many.add_argument("--back", action="store_true", help="bring back what is split off")
    add("--seed", type=int, default=0, help="another one gives other pictures (default 0)")
    add_workspace(parser)


def run(args: argparse.Namespace, events: EventSink) -> dict[str, Any]:
    """Split, or bring back. Raises UserError when something is wrong, and then moves nothing."""
    folder = args.folder.expanduser().resolve()
    log = EditLog.of(workspace_of(args), folder)
    if args.back:
        outcome = bring_back(folder, log)
        return {"folder": str(folder), "brought_back": outcome.written, "conflicts": list(outcome.conflicts)}
    done = split_off(folder, share=args.share, count=args.count, seed=args.seed, log=log, events=events)
    return {
        "folder": str(folder),
        "validation": str(done.validation),
        "moved": done.moved,
        "left": done.left,
        "together": done.together,
        "conflicts": list(done.outcome.conflicts),
    }


def describe(answer: dict[str, Any]) -> str:
    """What was moved, and where to."""
    if "brought_back" in answer:
        lines = [f"{answer['brought_back']} files brought back."]
    else:
        lines = [
            f"{answer['moved']} pictures are validated on from now on, {answer['left']} are left to train on.",
            f"Give this folder as validation.path: {answer['validation']}",
        ]
    return "\n".join([*lines, *(f"left alone, it was changed meanwhile: {name}" for name in answer["conflicts"])])

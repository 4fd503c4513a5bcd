"""``dataset DIR``: look for problems in a folder of pictures."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from trainer.commands.arguments import add_workspace, workspace_of
from trainer.config import Config, DatasetSettings
from trainer.curation.doctor import examine
from trainer.curation.doctor.records import Records
from trainer.runs.events import EventSink

_SHOWN_PATHS = 10
_SHOWN_TAGS = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The folder, and what training it is meant for."""
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder of pictures")
    add_purpose(parser)
    add_workspace(parser)


def add_purpose(parser: argparse.ArgumentParser) -> None:
    """``--resolution`` and ``--batch-size`` of the training that the pictures are for."""
    resolution, batch_size = DatasetSettings().resolution, Config().train.batch_size
    parser.add_argument("--resolution", type=int, default=resolution, help=f"side in pixels (default {resolution})")
    parser.add_argument("--batch-size", type=int, default=batch_size, help=f"pictures a step (default {batch_size})")


def run(args: argparse.Namespace, events: EventSink) -> dict[str, Any]:
    """Examine the folder. Raises UserError when it does not exist or holds no pictures."""
    records = Records(workspace_of(args), args.folder.expanduser())
    report = examine(args.folder, args.resolution, events, batch_size=args.batch_size, records=records)
    return dataclasses.asdict(report)


def describe(answer: dict[str, Any]) -> str:
    """The findings, then the most frequent tags."""
    lines = [f"{answer['folder']}: {answer['pictures']} pictures, {answer['captions']} with a caption."]
    for finding in answer["findings"]:
        lines.append(f"{finding['severity']}: {finding['message']} {finding['hint']}")
        shown = finding["paths"][:_SHOWN_PATHS]
        more = len(finding["paths"]) - len(shown)
        lines.append(f"    {', '.join(shown)}{f' and {more} more' if more else ''}")
    if not answer["findings"]:
        lines.append("Nothing wrong was found.")
    if answer["tags"]:
        lines.append("Tags: " + ", ".join(f"{tag} ({count})" for tag, count in answer["tags"][:_SHOWN_TAGS]))
    return "\n".join(lines)

"""``trainer push RUN_OR_FILE``: a LoRA to the Hugging Face Hub, with a card. Shows what would go, and asks."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from trainer.commands.arguments import add_workspace, workspace_of
from trainer.commands.confirm import confirm
from trainer.commands.model_arguments import add_fields, given_fields
from trainer.errors import UserError
from trainer.runs.events import EventSink
from trainer.sharing.settings import ShareSettings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The LoRA, where it goes, and whether it is asked about."""
    parser.add_argument("source", metavar="RUN_OR_FILE", help="id or folder of a finished run, or a LoRA file")
    parser.add_argument("--private", action="store_true", help="only you may see a new repository (as it is)")
    add_fields(parser, ShareSettings)
    parser.add_argument("--yes", action="store_true", help="send it without asking")
    parser.add_argument("--dry-run", action="store_true", help="only tell what would be sent")
    add_workspace(parser)


def run(args: argparse.Namespace, events: EventSink) -> dict[str, Any]:
    """Send. Raises UserError, also where nobody can be asked and ``--yes`` is not given; StoppedOnRequest for a no."""
    settings = given_fields(args, ShareSettings)
    if args.private and settings.public:
        raise UserError("share.visibility", "--private and --public exclude each other.", "Give one of them.", "public")
    from trainer.sharing.contents import source_of
    from trainer.sharing.push import push

    by_id = workspace_of(args).runs_dir / args.source
    source = source_of(by_id if Path(args.source).name == args.source and by_id.is_dir() else Path(args.source))
    if not args.yes:
        planned = push(source, settings, events=events, dry_run=True)
        if args.dry_run:
            return planned
        confirm(describe({**planned, "dry_run": True}), "Send it?")
        settings = settings.model_copy(update={"repo": planned["repo"]})
    return push(source, settings, events=events, dry_run=args.dry_run)


def describe(answer: dict[str, Any]) -> str:
    """Where it is, or what would be sent."""
    rows = [f"  {file['size_bytes'] / 1e6:10.3f} MB  {file['name']}" for file in answer["files"]]
    new = "a new" if answer["new"] else "the"
    who = "only you can see" if answer["visibility"] == "private" else "everyone can see"
    head = "Would be sent" if answer["dry_run"] else "Sent"
    lines = [f"{head} to {new} repository {answer['repo']}, which {who}:", *rows]
    if answer["cleaned"]:
        lines.append("What the file tells of folders and pictures is left out of what is sent.")
    return "\n".join([*lines, answer["url"]])

"""``trainer cache``: what downloads and caches take of the disk, and deleting some of it."""

from __future__ import annotations

import argparse
import time
from typing import Any

from trainer.commands.arguments import add_workspace, workspace_of
from trainer.commands.confirm import confirm
from trainer.runs.events import EventSink


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to delete, where something is."""
    parser.add_argument("--delete", nargs="+", action="extend", default=[], metavar="NAME", help="names, as listed")
    parser.add_argument("--yes", action="store_true", help="delete without asking")
    add_workspace(parser)


def run(args: argparse.Namespace, events: EventSink) -> dict[str, Any]:
    """List, or delete. Raises UserError for a name that there is not, and while a run is going."""
    from trainer.caches import caches, delete_caches

    workspace = workspace_of(args)
    rows = [{**vars(cache), "path": str(cache.path)} for cache in caches(workspace)]
    if not args.delete:
        return {"caches": rows, "size_bytes": sum(row["size_bytes"] for row in rows)}
    if not args.yes:
        chosen = [_line(row) for row in rows if row["name"] in args.delete]
        confirm("\n".join(["To be deleted:", *chosen]), "Delete it?")
    return {"deleted": args.delete, "freed_bytes": delete_caches(workspace, args.delete)}


def describe(answer: dict[str, Any]) -> str:
    """A line for each, or how much was freed."""
    if "freed_bytes" in answer:
        return f"{answer['freed_bytes'] / 1e6:.1f} MB freed."
    return "\n".join([*map(_line, answer["caches"]), f"{answer['size_bytes'] / 1e9:10.3f} GB  in all"])


def _line(row: dict[str, Any]) -> str:
    used = time.strftime("%Y-%m-%d", time.localtime(row["last_used"])) if row["last_used"] else ""
    return f"{row['size_bytes'] / 1e9:10.3f} GB  {used:<10}  {row['name']}  ({row['about']})"

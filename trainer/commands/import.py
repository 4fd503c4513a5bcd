"""``import ID``: a data set of Hugging Face's ``datasets`` library as a folder of pictures."""

from __future__ import annotations

import argparse
from typing import Any

from trainer.commands.arguments import add_workspace, workspace_of
from trainer.config import Source
from trainer.curation.importing import import_set
from trainer.curation.intake import dataset_folder
from trainer.runs.events import EventSink


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The data set, its columns, and the new dataset's name."""
    add = parser.add_argument
    add("path", metavar="ID", help="hf://datasets/owner/name[@revision], a saved folder, or Parquet")
    add("--name", required=True, help="of the new folder among the workspace's datasets")
    add("--split", help="which one (default train, or the only one)")
    add("--image-column", metavar="NAME", help="column of the pictures (default the first of that kind)")
    add("--caption-column", metavar="NAME", help="column of the captions (default text, caption or prompt)")
    add_workspace(parser)


def run(args: argparse.Namespace, events: EventSink) -> dict[str, Any]:
    """Import. Raises UserError when something is wrong, and then writes nothing."""
    out = dataset_folder(workspace_of(args).datasets_dir, args.name)
    columns = {"image_column": args.image_column, "caption_column": args.caption_column}
    done = import_set(Source(path=args.path, **columns), args.split, out, events)
    return {
        "out": str(done.out),
        "path": args.path,
        "pictures": done.pictures,
        "captions": done.captions,
        "empty": done.empty,
    }


def describe(answer: dict[str, Any]) -> str:
    """What came in."""
    lines = [f"Written: {answer['out']}  {answer['pictures']} pictures, {answer['captions']} captions"]
    return "\n".join(lines + ([f"rows without a picture: {answer['empty']}"] if answer["empty"] else []))

"""``caption DIR``: write captions for a folder of pictures."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from trainer.captioners import CAPTIONERS
from trainer.captioners.folder import Wording, caption_folder, check_folder
from trainer.commands.arguments import add_workspace, workspace_of
from trainer.config_io import apply_override
from trainer.curation.edit_log import EditLog
from trainer.runs.events import EventSink


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The folder, the captioner, and what goes around its text."""
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder of pictures")
    parser.add_argument("--captioner", choices=list(CAPTIONERS), required=True, help="who writes the captions")
    parser.add_argument("--model", help="folder or Hugging Face id of the captioner's weights")
    parser.add_argument("--overwrite", action="store_true", help="also where there is a caption already")
    parser.add_argument("--trigger", default="", help="word put first, with a comma")
    parser.add_argument("--prefix", default="", help="text in front of each caption")
    parser.add_argument("--suffix", default="", help="text behind each caption")
    parser.add_argument("--prompt", help="what the captioner is told; for `fixed` the text itself")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="any other option of the captioner"
    )
    add_workspace(parser)


def run(args: argparse.Namespace, events: EventSink) -> dict[str, Any]:
    """Write the captions. Raises UserError when the folder or the captioner's model is missing or wrong."""
    folder = args.folder.expanduser().resolve()
    check_folder(folder)
    started = time.monotonic()
    kind = CAPTIONERS[args.captioner]
    captioner = kind.load(kind.parse(_options(args)))
    report = caption_folder(
        folder,
        captioner,
        Wording(args.trigger, args.prefix, args.suffix),
        overwrite=args.overwrite,
        log=EditLog.of(workspace_of(args), folder),
        events=events,
    )
    return {
        "folder": str(folder),
        "captioner": args.captioner,
        "written": report.written,
        "kept": report.kept,
        "skipped": [{"path": path, "reason": reason} for path, reason in report.skipped],
        "seconds": round(time.monotonic() - started, 1),
    }


def _options(args: argparse.Namespace) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for override in args.set:
        apply_override(values, override)
    given = {"model": args.model, "prompt": args.prompt}
    return values | {name: value for name, value in given.items() if value is not None}


def describe(answer: dict[str, Any]) -> str:
    """What was written, kept and skipped."""
    lines = [f"{answer['written']} captions written, {answer['kept']} pictures already had one."]
    lines += [f"skipped {entry['path']}: {entry['reason']}" for entry in answer["skipped"]]
    return "\n".join(lines)

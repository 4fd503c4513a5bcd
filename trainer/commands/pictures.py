"""``pictures DIR``: a folder of pictures in other sizes, shapes and formats."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from trainer.commands.arguments import add_names, add_workspace, names_of, workspace_of
from trainer.curation.conversion import FILE_FORMATS, ConversionOptions, convert_pictures
from trainer.curation.crops import read_crops
from trainer.curation.framing import CROPS, Framing, SizeRule
from trainer.curation.mask_files import masks_folder
from trainer.errors import UserError
from trainer.runs.events import EventSink


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The folder, where the new one goes, and what becomes of the pictures."""
    add = parser.add_argument
    add("folder", type=Path, metavar="DIR", help="folder of pictures")
    add("--out", type=Path, required=True, metavar="DIR", help="new folder")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--longest", type=int, metavar="PX", help="longer side")
    size.add_argument("--shortest", type=int, metavar="PX", help="shorter side")
    size.add_argument("--exact", metavar="WxH", help="this size, whatever the shape was")
    size.add_argument("--bucket", type=int, metavar="PX", help="the size training at this resolution would choose")
    add("--upscale", action="store_true", help="enlarge smaller pictures too")
    add("--crop", choices=CROPS, default="none", help="hand: the boxes drawn on the Dataset tab")
    add("--aspect", metavar="W:H", help="shape to crop to, where the size does not say it")
    add("--format", choices=FILE_FORMATS, default="keep", help="of the files (default keep)")
    add("--quality", type=int, default=ConversionOptions.quality, metavar="N", help="JPEG, WebP: 1 to 100 (default 95)")
    add("--background", metavar="COLOUR", help="put transparent parts on a colour; without it they are kept")
    add_names(parser, "only these")
    add("--masks", type=Path, metavar="DIR", help="folder of masks (default: those painted on the Dataset tab)")
    add_workspace(parser)


def run(args: argparse.Namespace, events: EventSink) -> dict[str, Any]:
    """Write the new folder. Raises UserError when something is wrong, and then writes nothing."""
    folder = args.folder.expanduser().resolve()
    options = ConversionOptions(
        framing=_framing(args),
        names=names_of(args),
        format=args.format,
        quality=args.quality,
        background=args.background,
        masks=args.masks.expanduser() if args.masks else masks_folder(folder),
    )
    boxes = read_crops(workspace_of(args), folder) if args.crop == "hand" else {}
    done = convert_pictures(folder, args.out.expanduser(), options, boxes, events)
    return {
        **dataclasses.asdict(done),
        "out": str(done.out),
        "skipped": [{"path": path, "reason": reason} for path, reason in done.skipped],
    }


def _framing(args: argparse.Namespace) -> Framing:
    aspect = _pair(args.aspect, ":", "--aspect") if args.aspect else None
    framing = Framing(crop=args.crop, aspect=aspect, upscale=args.upscale)
    if args.exact:
        width, height = _pair(args.exact, "x", "--exact")
        return dataclasses.replace(framing, rule="exact", width=width, height=height)
    given: dict[SizeRule, int | None] = {"longest": args.longest, "shortest": args.shortest, "bucket": args.bucket}
    for rule, side in given.items():
        if side is not None:
            return dataclasses.replace(framing, rule=rule, width=side)
    return framing


def _pair(text: str, sign: str, option: str) -> tuple[int, int]:
    first, _, second = text.lower().partition(sign)
    try:
        return int(first), int(second)
    except ValueError as error:
        message = f"{option} {text!r} is not of the form NUMBER{sign}NUMBER."
        raise UserError("cli.pair", message, f"Example: {option} 3{sign}4", option.strip("-")) from error


def describe(answer: dict[str, Any]) -> str:
    """What was written, and what is worth knowing about it."""
    lines = [f"Written: {answer['out']}  {answer['pictures']} pictures, {answer['captions']} captions"]
    lines += [f"masks: {answer['masks']} in {answer['masks_dir']}"] if answer["masks"] else []
    lines += [f"{each['path']}: {each['reason']}" for each in answer["skipped"]]
    return "\n".join([*lines, *answer["notes"]])

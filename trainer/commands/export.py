"""``export DIR``: write a folder of pictures anew as other programs want it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from trainer.commands.arguments import add_names, names_of
from trainer.curation.exports import FORMATS, ExportOptions, export
from trainer.curation.mask_files import masks_folder
from trainer.curation.picture_sets import name_within
from trainer.runs.events import EventSink


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The folder, the layout, and where it goes."""
    add = parser.add_argument
    add("folder", type=Path, metavar="DIR", help="folder of pictures")
    add("--to", choices=FORMATS, required=True, help="kohya: N_name folders; imagefolder: metadata.jsonl; csv; plain")
    add("--out", type=Path, required=True, help="new folder, or zip file with --zip")
    add("--zip", action="store_true", help="one zip file instead of a folder")
    add_names(parser, "only these")
    add("--masks", type=Path, metavar="DIR", help="folder of masks (default: those painted on the Dataset tab)")
    add("--repeats", type=int, metavar="N", help="kohya: number in front of the folder's name (default: as it is now)")
    add("--concept", default="", metavar="WORD", help="kohya: trigger word in the folder's name")
    add("--class-word", default="", metavar="WORD", help="kohya: class in the folder's name")
    add("--regularization", type=Path, metavar="DIR", help="kohya: folder of regularization pictures")


def run(args: argparse.Namespace, events: EventSink) -> dict[str, Any]:
    """Export. Raises UserError when something is wrong, and then writes nothing."""
    folder, out = args.folder.expanduser().resolve(), args.out.expanduser()
    if args.zip and out.suffix.lower() != ".zip":
        out = out.with_name(f"{out.name}.zip")
    options = ExportOptions(
        to=args.to,
        names=names_of(args),
        masks=args.masks.expanduser() if args.masks else masks_folder(folder),
        repeats=args.repeats,
        concept=args.concept,
        class_word=args.class_word,
        regularization=args.regularization.expanduser() if args.regularization else None,
    )
    done = export(folder, out, options, zipped=args.zip, events=events)
    return {
        "out": str(done.out),
        "format": args.to,
        "zip": args.zip,
        "pictures_dir": done.pictures_dir,
        "masks_dir": done.masks_dir,
        "pictures": done.pictures,
        "captions": done.captions,
        "masks": done.masks,
        "regularization": done.regularization,
        "skipped": [{"path": name_within(each.path, folder), "reason": each.reason} for each in done.skipped],
        "notes": done.notes,
    }


def describe(answer: dict[str, Any]) -> str:
    """What was written, and what is worth knowing about it."""
    lines = [f"Written: {answer['out']}  {answer['pictures']} pictures, {answer['captions']} captions"]
    lines += [f"masks: {answer['masks']} in {answer['masks_dir']}"] if answer["masks"] else []
    lines += [f"regularization pictures: {answer['regularization']}"] if answer["regularization"] else []
    lines += [f"left out {each['path']}: {each['reason']}" for each in answer["skipped"]]
    return "\n".join([*lines, *answer["notes"]])

"""``caption DIR``: write captions for a folder of pictures, at once or after somebody looked them over."""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from trainer.captioners import CAPTIONERS
from trainer.captioners.base import CaptionerOptions, Runtime
from trainer.captioners.describing import Subject
from trainer.captioners.drafts import DraftFile
from trainer.captioners.folder import (
    TITLE,
    CaptionOrder,
    CaptionReport,
    Drafter,
    Mode,
    Writer,
    caption_pictures,
    left_alone,
    subjects,
    write_drafts,
)
from trainer.captioners.onnx_tagger import has_gpu
from trainer.captioners.prompts import with_trigger
from trainer.captioners.wording import Wording
from trainer.commands.arguments import add_gpu_sharing, add_names, add_workspace, names_of, workspace_of
from trainer.commands.model_arguments import add_fields, given_fields
from trainer.config_io import apply_override
from trainer.curation.edit_log import EditLog
from trainer.errors import UserError
from trainer.runs.events import EventSink


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The folder, the captioner, which pictures, and what becomes of the captioner's texts."""
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder of pictures")
    parser.add_argument("--captioner", choices=list(CAPTIONERS), help="who writes the captions")
    parser.add_argument("--model", help="folder or Hugging Face id of the captioner's weights")
    parser.add_argument("--prompt", help="what the captioner is told; for `fixed` the text itself")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="any other option of the captioner"
    )
    there = parser.add_argument_group("captions that are there (kept, unless one of these is given)")
    modes = there.add_mutually_exclusive_group()
    modes.add_argument("--overwrite", dest="mode", action="store_const", const="overwrite", help="replace them")
    modes.add_argument("--append", dest="mode", action="store_const", const="append", help="add to them, behind")
    modes.add_argument("--prepend", dest="mode", action="store_const", const="prepend", help="add to them, in front")
    there.add_argument("--new-line", action="store_true", help="what is added becomes a line of its own")
    which = parser.add_argument_group("which pictures (all, unless one of these is given)")
    add_names(which, "only these")
    which.add_argument("--subfolder", default="", metavar="NAME", help="only those in this folder of DIR")
    which.add_argument("--limit", type=int, metavar="N", help="only the first N that get a caption")
    parser.add_argument("--times", type=int, default=1, metavar="N", help="texts per picture, each a line (1 to 16)")
    parser.add_argument("--afresh", action="store_true", help="do not go on where the same job ended before")
    parser.add_argument("--review", action="store_true", help="write drafts into the workspace, no captions yet")
    parser.add_argument("--write", type=Path, metavar="DRAFTS", help="write drafts, but for rejected ones")
    add_gpu_sharing(parser)
    add_fields(parser.add_argument_group("the text"), Wording)
    add_workspace(parser)


def run(args: argparse.Namespace, events: EventSink) -> dict[str, Any]:
    """Caption the pictures, or write drafts.

    Raises UserError when the folder, the captioner's model or an option is missing or wrong.
    """
    started = time.monotonic()
    folder = args.folder.expanduser().resolve()
    answer = _write(args, folder) if args.write else _caption(args, folder, events)
    return {"folder": str(folder), **answer, "seconds": round(time.monotonic() - started, 1)}


def describe(answer: dict[str, Any]) -> str:
    """What was written, drafted, kept and skipped."""
    lines = [f"{answer['written']} captions written, {answer['kept']} pictures left as they were."]
    if answer.get("drafts"):
        lines = [f"{answer['drafted']} drafts are in {answer['drafts']}.", "`caption DIR --write FILE` writes them."]
    lines += [f"skipped {entry['path']}: {entry['reason']}" for entry in answer["skipped"]]
    return "\n".join(lines)


def _caption(args: argparse.Namespace, folder: Path, events: EventSink) -> dict[str, Any]:
    if args.captioner is None:
        known = ", ".join(CAPTIONERS)
        raise UserError("caption.no_captioner", "No captioner is given.", f"--captioner NAME, of {known}.", "captioner")
    pictures = _chosen(args, folder)
    wording = given_fields(args, Wording)
    kind = CAPTIONERS[args.captioner]
    options = kind.parse(with_trigger(_options(args), wording.trigger))
    order = CaptionOrder(_mode(args), args.new_line, wording, _times(args), options.batch_size, args.afresh)
    report, drafts = _captioned(args, folder, pictures, order, options, events)
    counts = {"written": 0, "drafted": report.written} if args.review else {"written": report.written, "drafted": 0}
    return {
        "captioner": args.captioner,
        **counts,
        "kept": report.kept,
        "skipped": [{"path": path, "reason": reason} for path, reason in report.skipped],
        "drafts": str(drafts) if args.review else None,
    }


def _captioned(
    args: argparse.Namespace,
    folder: Path,
    pictures: list[Subject],
    order: CaptionOrder,
    options: CaptionerOptions,
    events: EventSink,
) -> tuple[CaptionReport, Path]:
    """Caption the pictures; answers with the report and the file of drafts or notes."""
    workspace, key, kind = workspace_of(args), _key(args.captioner, order, options), CAPTIONERS[args.captioner]
    with _gpu_held(kind.runtime, folder, args.share_gpu, events):
        captioner = kind.load(options)
        if args.review:
            drafts = DraftFile.review(workspace, folder)
            return caption_pictures(pictures, captioner, order, Drafter(drafts, key), events), drafts.path
        note = DraftFile.note(workspace, folder, key)
        with EditLog.of(workspace, folder).growing(TITLE) as write:
            return caption_pictures(pictures, captioner, order, Writer(write, note, key), events), note.path


def _gpu_held(runtime: Runtime, folder: Path, share: bool, events: EventSink) -> AbstractContextManager[None]:
    """The GPU, for a captioner that computes there."""
    if runtime == "none" or (runtime == "onnx" and not has_gpu()):
        return nullcontext()
    from trainer.devices import gpu_held, pick_device  # only then: it needs torch

    return gpu_held(pick_device(), f"captioning of {folder.name}", events, share=share)


def _write(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Write drafts for pictures that are still there, and of these the ones that were not rejected."""
    drafts = DraftFile.open(args.write.expanduser().resolve(), folder)
    there = {subject.name: subject.caption_name for subject in subjects(folder)}
    wanted = {
        name: draft
        for name, draft in drafts.read().items()
        if draft.decision != "rejected" and there.get(name) == draft.file
    }
    outcome = write_drafts(drafts, EditLog.of(workspace_of(args), folder), wanted)
    reasons = left_alone(outcome)
    skipped = [{"path": name, "reason": reasons[draft.file]} for name, draft in wanted.items() if draft.file in reasons]
    return {"written": outcome.written, "kept": len(drafts.read()) - len(skipped), "skipped": skipped}


def _chosen(args: argparse.Namespace, folder: Path) -> list[Subject]:
    """The pictures that the options name. Raises UserError when that is none."""
    pictures = subjects(folder, names_of(args))
    inside = args.subfolder.strip("/")
    if inside:
        pictures = [subject for subject in pictures if subject.name.startswith(f"{inside}/")]
    if args.limit is not None:
        missing_only = _mode(args) == "missing"
        pictures = [one for one in pictures if not (missing_only and one.own.text.strip())][: max(0, args.limit)]
    if not pictures and inside:
        raise UserError("caption.no_subfolder", f"{folder} has no pictures in {inside!r}.", "Check it.", "subfolder")
    return pictures


def _mode(args: argparse.Namespace) -> Mode:
    return args.mode or "missing"


def _times(args: argparse.Namespace) -> int:
    if not 1 <= args.times <= 16:
        raise UserError("caption.times", f"times: {args.times} is not between 1 and 16.", "1 is usual.", "times")
    return int(args.times)


def _options(args: argparse.Namespace) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for override in args.set:
        apply_override(values, override)
    given = {"model": args.model, "prompt": args.prompt}
    return values | {name: value for name, value in given.items() if value is not None}


def _key(captioner: str, order: CaptionOrder, options: CaptionerOptions) -> str:
    """Names a job by all that decides what a picture's caption becomes."""
    asked = [captioner, options.model_dump(), order.mode, order.new_line, order.times, order.wording.model_dump()]
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:12]

"""``fix DIR``: mend what the doctor found in a folder of pictures, as one edit that Undo takes back."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trainer.commands.arguments import add_names, add_workspace, names_of, workspace_of
from trainer.commands.dataset import add_purpose
from trainer.curation.doctor import Finding, examine
from trainer.curation.doctor.records import Records
from trainer.curation.edit_log import EditLog
from trainer.curation.fixes.offers import FIXES, SAFE_TITLE
from trainer.curation.fixes.orders import Order, carry_out_order, order_of, safe_order
from trainer.errors import UserError
from trainer.runs.events import EventSink


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The folder, which fix, and for which files."""
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder of pictures")
    parser.add_argument("--fix", choices=list(FIXES), help="what to do; all fixes that are safe without it")
    parser.add_argument("--finding", metavar="CODE", help="only where this was found, such as picture.blurred")
    add_names(parser, "files to fix")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="what a fix needs, such as background=black"
    )
    add_purpose(parser)
    add_workspace(parser)


def run(args: argparse.Namespace, events: EventSink) -> dict[str, Any]:
    """Make the fixes, then look the folder over again. Raises UserError for a folder, fix or values that are wrong."""
    folder, workspace = args.folder.expanduser().resolve(), workspace_of(args)
    records = Records(workspace, folder)
    purpose = {"batch_size": args.batch_size, "records": records}
    order = _order(args, [] if args.names else examine(folder, args.resolution, events, **purpose).findings, records)
    title = FIXES[args.fix].label.lower() if args.fix else SAFE_TITLE
    outcome = carry_out_order(folder, order, title, EditLog.of(workspace, folder), events)
    report = examine(folder, args.resolution, events, **purpose)
    left = [{"path": name, "reason": reason} for name, reason in outcome.left]
    return {
        "folder": str(folder),
        "fix": args.fix or "safe",
        "fixed": outcome.fixed,
        "left": left,
        "report": dataclasses.asdict(report),
    }


def describe(answer: dict[str, Any]) -> str:
    """What was fixed, what was left alone, and what the doctor still finds."""
    count, findings = len(answer["fixed"]), len(answer["report"]["findings"])
    lines = [f"{count} {'file' if count == 1 else 'files'} fixed; {findings or 'no'} findings remain."]
    lines += [f"left alone: {each['path']}: {each['reason']}" for each in answer["left"]]
    return "\n".join(lines)


def _order(args: argparse.Namespace, findings: Sequence[Finding], records: Records) -> Order:
    values = _values(args.set)
    names = names_of(args)
    if names is not None:
        if not args.fix:
            raise UserError("fix.which", "--names needs --fix.", "Say what to do with these files.", "fix")
        return order_of(args.fix, names, values)
    left_as_is = records.left_as_is()
    kept = [left for each in findings if (left := each.without(left_as_is)) is not None]
    chosen = [each for each in kept if not args.finding or each.code == args.finding]
    if not args.fix:
        return safe_order(chosen)
    if args.fix == "set_aside" and not args.finding:
        hint = "Such as --finding picture.blurred; without --fix, all that is safe is done."
        raise UserError("fix.which", "--fix set_aside needs --finding or --names.", hint, "finding")
    offered = [each for each in chosen if args.fix in each.fixes]
    names = [name for each in offered for name in each.targets]
    return order_of(args.fix, dict.fromkeys(names), _values_found(offered) | values)


def _values_found(findings: Sequence[Finding]) -> dict[str, str]:
    """What the findings say a fix needs. Raises UserError when they say different things, such as several tags."""
    found = {tuple(sorted(each.values.items())) for each in findings if each.values}
    if len(found) > 1:
        hint = "Name the files with --names and the values with --set."
        raise UserError("fix.several", "The findings need different values.", hint, "set")
    return dict(next(iter(found), ()))


def _values(given: Sequence[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in given]
    wrong = [name for name, sign, _ in pairs if not sign or not name]
    if wrong:
        raise UserError("fix.set", f"--set {wrong[0]!r} is not of the form NAME=VALUE.", "Example: background=black")
    return {name: value for name, _, value in pairs}

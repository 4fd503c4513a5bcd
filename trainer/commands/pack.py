"""``trainer pack RUN_OR_CONFIG``: a training as a folder that runs on another machine with one command."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from trainer.commands.arguments import add_workspace, workspace_of
from trainer.config_io import load_config
from trainer.packing import pack, planned
from trainer.runs.events import EventSink
from trainer.runs.store import Run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What is packed, and how much of it."""
    parser.add_argument("source", metavar="RUN_OR_CONFIG", help="id or folder of a run, or a config file")
    parser.add_argument("--out", type=Path, required=True, help="new folder")
    parser.add_argument("--with-data", action="store_true", help="pictures, captions, masks and LoRAs go along")
    parser.add_argument("--with-model", action="store_true", help="a base model of this machine goes along")
    parser.add_argument("--set", action="append", default=[], metavar="a.b=value", help="change one setting")
    add_workspace(parser)


def run(args: argparse.Namespace, events: EventSink) -> dict[str, Any]:
    """Pack. Raises UserError when something that is named is not there, or ``--out`` is."""
    workspace = workspace_of(args)
    by_id = workspace.runs_dir / args.source
    given = by_id if Path(args.source).name == args.source and by_id.is_dir() else Path(args.source).expanduser()
    config = load_config(Run(given).config_path if given.is_dir() else given, args.set)
    packed = planned(config, with_data=args.with_data, with_model=args.with_model)
    out = args.out.expanduser().resolve()
    pack(packed, out, events)
    return {"out": str(out), "copied": list(packed.copies), "missing": list(packed.missing)}


def describe(answer: dict[str, Any]) -> str:
    """Where it is, and what has to be added."""
    lines = [f"Packed: {answer['out']}", *(f"  with {place}" for place in answer["copied"])]
    lines += [f"To be added there: {place}" for place in answer["missing"]]
    return "\n".join([*lines, "On the other machine: ./run.sh"])

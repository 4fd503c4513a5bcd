"""``read-config FILE``: settings of another trainer as a config of ours, with a report of what became of each key."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trainer.config_io import dump_config
from trainer.config_paths import config_with_full_paths
from trainer.errors import UserError
from trainer.files import write_text
from trainer.imports import CONFIG_KINDS
from trainer.imports.reading import import_path
from trainer.runs.events import EventSink

_HEADINGS = {
    "mapped": "taken over",
    "guessed": "taken over as nearly as it goes",
    "no_equivalent": "not taken over",
    "no_effect": "changes nothing here",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The file, whose it is, and where the config goes."""
    add = parser.add_argument
    add(
        "file", type=Path, metavar="FILE", help="a settings file, a text with a command line, a LoRA, or a run's folder"
    )
    add("--format", choices=list(CONFIG_KINDS), default=None, help="whose it is (default: seen by the content)")
    add("--out", type=Path, metavar="CONFIG.yaml", help="write the config there; it must not exist")


def run(args: argparse.Namespace, events: EventSink) -> dict[str, Any]:
    """Read, and write the config where one is asked for. Raises UserError, and then writes nothing."""
    imported = import_path(args.file, args.format)
    folder = args.file.expanduser().resolve()
    config = config_with_full_paths(imported.config, folder if folder.is_dir() else folder.parent)
    if args.out is not None:
        if args.out.exists():
            raise UserError("out.exists", f"out: {args.out} exists already.", "Choose another name.", "out")
        write_text(args.out, dump_config(config))
    return {
        "file": str(args.file),
        "out": str(args.out) if args.out else None,
        **dataclasses.asdict(imported.report),
        "config": config.model_dump(mode="json"),
    }


def describe(answer: dict[str, Any]) -> str:
    """The counts, the four lists, and the config unless it was written."""
    counts = ", ".join(f"{len(answer[name])} {heading}" for name, heading in _HEADINGS.items())
    lines = [f"{answer['kind']}: {counts}"]
    for name, heading in _HEADINGS.items():
        if answer[name]:
            lines += ["", f"{heading}:", *_rows(answer[name])]
    if answer["out"]:
        lines += ["", f"Written: {answer['out']}"]
    return "\n".join(lines)


def _rows(lines: list[dict[str, str]]) -> Iterator[str]:
    for line in lines:
        became = f" -> {line['setting']}: {line['value']}" if line["setting"] else ""
        note = f"  ({line['note']})" if line["note"] else ""
        yield f"  {line['source']}: {line['given']}{became}{note}"

"""``trainer convert``: a LoRA in another form, the same numbers under other names."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from trainer.commands.results import PRECISIONS
from trainer.runs.events import EventSink

FORMS = ("kohya", "diffusers", "peft")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A LoRA, the form wanted, and where it goes."""
    add = parser.add_argument
    add("--lora", type=Path, required=True, metavar="FILE", help="a LoRA file, or the folder of a PEFT adapter")
    add("--to", choices=FORMS, required=True, help="kohya: loads everywhere; diffusers; peft: a folder")
    add("--out", type=Path, required=True, help="new .safetensors file; for peft a new folder")
    add("--rank", type=int, default=None, help="LoHa and LoKr layers become the nearest LoRA of at most this rank")
    add("--conv-rank", type=int, default=None, help="the same for convolutions larger than 1x1; otherwise --rank")
    add("--save-precision", choices=PRECISIONS, default=None, help="number format; without it that of each tensor")
    add("--overwrite", action="store_true", help="replace --out where it is there already")


def run(args: argparse.Namespace, events: EventSink) -> dict[str, Any]:
    """Convert. Raises UserError when the form cannot hold the LoRA, and then writes nothing."""
    from trainer.lora.convert import Conversion, convert_lora

    wanted = Conversion(args.to, args.rank, args.conv_rank, args.save_precision)
    return convert_lora(args.lora.expanduser(), args.out.expanduser(), wanted, overwrite=args.overwrite, events=events)


def describe(answer: dict[str, Any]) -> str:
    """What was written, what is different, and the error layer by layer where there is one."""
    lines = [f"Written: {file}" for file in answer["files"]]
    lines.append(f"{answer['layers']} layers ({', '.join(answer['kinds'])}), from {answer['from']} to {answer['to']}")
    lines += [f"{'Lost' if note['lost'] else 'Note'}: {note['message']}" for note in answer["notes"]]
    if answer["error"]:
        lines += ["", f"{'missing':>8}  rank  layer"]
        rows = sorted(answer["error"]["layers"], key=lambda row: -row["error"])
        lines += [f"{row['error']:>8.2%}  {row['rank']:>4}  {row['layer']}" for row in rows]
    return "\n".join(lines)

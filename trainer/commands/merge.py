"""``trainer merge``: LoRAs into one LoRA, or into a model with ``--base``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from trainer.commands.arguments import parse_pair
from trainer.errors import UserError
from trainer.runs.events import EventSink

MODES = ("exact", "svd", "kohya")
PRECISIONS = ("float", "fp16", "bf16")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """LoRAs, ratios, and what to make of them."""
    add = parser.add_argument
    add("--lora", nargs="+", action="extend", required=True, metavar="FILE=RATIO", help="a LoRA and its ratio")
    add("--out", type=Path, required=True, help="new .safetensors file; with --base a new folder")
    add("--base", default=None, help="model to merge into: demo, a folder, a .safetensors or .ckpt file, or a hub id")
    add("--mode", choices=MODES, default="exact", help="how LoRAs are merged with each other")
    add("--rank", type=int, default=None, help="rank of the result, for --mode svd")
    add("--precision", choices=PRECISIONS, default="float", help="number format of the sums; for --base")
    add(
        "--save-precision", choices=PRECISIONS, default=None, help="number format written; without it that of the input"
    )


def run(args: argparse.Namespace, events: EventSink) -> dict[str, Any]:
    """Merge. Raises UserError when something does not fit, and then writes nothing."""
    pairs = [(Path(name).expanduser(), ratio) for name, ratio in (parse_pair(text, "--lora") for text in args.lora)]
    return _into_model(args, pairs, events) if args.base else _into_lora(args, pairs, events)


def describe(answer: dict[str, Any]) -> str:
    """What was written, and what was left out."""
    lines = [f"Written: {answer['out']}"]
    for file, keys in answer["unknown_keys"].items():
        lines.append(f"Not understood in {file}, left out: {', '.join(keys)}")
    return "\n".join(lines)


def _into_lora(args: argparse.Namespace, pairs: list[tuple[Path, float]], events: EventSink) -> dict[str, Any]:
    from trainer.lora.file import read_lora, write_lora
    from trainer.lora.merge import merge_loras, widest_precision

    if args.out.suffix != ".safetensors":
        raise UserError("merge.out", f"out: {args.out} must end in .safetensors.", "Correct the name.", "out")
    if args.out.exists():
        raise UserError("merge.exists", f"out: {args.out} exists already.", "Choose another name.", "out")
    files = []
    for number, (path, ratio) in enumerate(pairs):
        events.emit("progress", what="reading", done=number, total=len(pairs))
        files.append((read_lora(path), ratio))
    events.emit("progress", what="merging", done=0, total=1)
    merged = merge_loras(files, args.mode, args.rank, names=[path.name for path, _ in pairs])
    precision = args.save_precision or widest_precision([lora for lora, _ in files])
    write_lora(args.out, merged, precision=precision)
    events.emit("progress", what="merging", done=1, total=1)
    ranks = sorted({layer.rank for layer in merged.layers.values()})
    return {
        "out": str(args.out),
        "mode": args.mode,
        "layers": len(merged.layers),
        "ranks": ranks,
        "precision": precision,
        "loras": [{"file": str(path), "ratio": ratio} for path, ratio in pairs],
        "unknown_keys": {
            str(path): lora.unknown for (path, _), (lora, _) in zip(pairs, files, strict=True) if lora.unknown
        },
    }


def _into_model(args: argparse.Namespace, pairs: list[tuple[Path, float]], events: EventSink) -> dict[str, Any]:
    from trainer.families import model_folder
    from trainer.lora.merge_model import merge_into_model

    if args.mode != "exact" or args.rank is not None:
        hint = "Leave --mode and --rank out."
        raise UserError("merge.mode", "mode: merging into a model is always exact.", hint, "mode")
    base = model_folder(args.base, None, field="base", events=events)
    done = merge_into_model(
        base, pairs, args.out, precision=args.precision, save_precision=args.save_precision, events=events
    )
    return {**done, "base": args.base, "loras": [{"file": str(path), "ratio": ratio} for path, ratio in pairs]}

"""``trainer resize``: a LoRA of another rank, of the same strength."""

from __future__ import annotations

import argparse
import math
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from trainer.commands.results import add_result_arguments, attempt
from trainer.errors import UserError
from trainer.runs.events import EventSink

METHODS = ("sv_ratio", "sv_fro", "sv_cumulative")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The file, the rank, how it is found, and where the result goes."""
    add = parser.add_argument
    add("--lora", type=Path, required=True, metavar="FILE", help="LoRA, DoRA, LoHa or LoKr in .safetensors form")
    add("--rank", type=int, required=True, help="new rank; with --dynamic the largest allowed")
    add("--conv-rank", type=int, default=None, help="new rank of large convolutions; without it that of --rank")
    add("--dynamic", choices=METHODS, default=None, help="a rank for each layer, by its singular values")
    add("--param", type=float, default=None, metavar="X", help="for --dynamic: ratio (1 or more) or share (0 to 1)")
    add("--like-kohya", action="store_true", help="ranks as sd-scripts finds them: one more with --dynamic")
    add("--verbose", action="store_true", help="print what is kept of every layer")
    add_result_arguments(parser, precision_help="number format written; without it that of the file")


def run(args: argparse.Namespace, events: EventSink) -> dict[str, Any]:
    """Resize. Raises UserError when something is wrong, and then writes nothing."""
    from trainer.devices import choose_device, tool_device
    from trainer.lora.file import read_lora, write_lora
    from trainer.lora.merge import widest_precision
    from trainer.lora.outputs import lora_file_problems
    from trainer.lora.resize import Choice, check_choice, kept_norm, resize_lora

    path = args.lora.expanduser()
    problems = [*check_choice(args.rank, args.conv_rank, args.dynamic, args.param)]
    problems += lora_file_problems(args.out, [path], overwrite=args.overwrite)
    attempt(problems, lambda: choose_device(args.device))
    lora = attempt(problems, lambda: read_lora(path))
    if problems or lora is None:
        raise UserError.many(problems)
    choice = Choice(args.rank, args.conv_rank or args.rank, args.dynamic, args.param, args.like_kohya)
    with tool_device(args.device, f"resizing of {path.name}", events) as device:
        resized, reports = resize_lora(lora, choice, device=device, events=events)
    precision = args.save_precision or widest_precision([lora])
    write_lora(args.out, resized, precision=precision)
    return {
        "out": str(args.out),
        "lora": str(path),
        "precision": precision,
        "size_bytes": args.out.stat().st_size,
        "size_bytes_before": path.stat().st_size,
        "norm_kept": kept_norm(reports),
        "norm_kept_smallest": min(report.norm_kept for report in reports),
        "norm_kept_mean": math.fsum(report.norm_kept for report in reports) / len(reports),
        "ranks_before": dict(sorted(Counter(report.rank_before for report in reports).items())),
        "ranks": dict(sorted(Counter(report.rank for report in reports).items())),
        "layers": [asdict(report) for report in reports],
        "unknown_keys": lora.unknown,
        "verbose": args.verbose,
    }


def describe(answer: dict[str, Any]) -> str:
    """What was kept; with ``--verbose`` of each layer."""
    before, after = answer["size_bytes_before"] / 1e6, answer["size_bytes"] / 1e6
    lines = [_row(layer) for layer in answer["layers"]] if answer["verbose"] else []
    if lines:
        lines = [f"{'layer':<76}{'rank':>10}{'alpha':>10}{'sum':>8}{'norm':>8}{'ratio':>10}", *lines, ""]
    lines += [
        f"Written: {answer['out']}  {after:.1f} MB (was {before:.1f} MB)  {answer['precision']}",
        f"rank     {_listing(answer['ranks'])} (was {_listing(answer['ranks_before'])})",
        f"kept     {answer['norm_kept']:.2%} of the change's norm; by layer {answer['norm_kept_mean']:.2%} on average, "
        f"{answer['norm_kept_smallest']:.2%} at least",
    ]
    return "\n".join([*lines, *(f"not understood, left out: {key}" for key in answer["unknown_keys"])])


def _row(layer: dict[str, Any]) -> str:
    ranks = f"{layer['rank_before']} > {layer['rank']}"
    kept = f"{layer['sum_kept']:>8.1%}{layer['norm_kept']:>8.1%}{layer['ratio']:>10.1f}"
    return f"{layer['module']:<76}{ranks:>10}{layer['alpha']:>10.4g}{kept}"


def _listing(counts: dict[int, int]) -> str:
    if len(counts) == 1:
        return str(next(iter(counts)))
    if len(counts) > 6:
        return f"{min(counts)} to {max(counts)}"
    return ", ".join(f"{rank} ({count} layers)" for rank, count in counts.items())

"""``trainer extract``: the difference of two models as a LoRA."""

from __future__ import annotations

import argparse
from collections import Counter
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from trainer.commands.results import add_result_arguments, attempt
from trainer.errors import Problem, UserError
from trainer.runs.events import EventSink


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The two models, what is kept of their difference, and where the LoRA goes."""
    add = parser.add_argument
    model = "demo, a folder, a .safetensors or .ckpt file, or a hub id"
    add("--base", required=True, metavar="MODEL", help=f"the model the LoRA will be used with: {model}")
    add("--tuned", required=True, metavar="MODEL", help="the fine-tuned model, in any of these forms")
    add("--rank", type=int, required=True, help="rank of linear layers and 1x1 convolutions")
    add("--conv-rank", type=int, default=None, help="rank of 3x3 convolutions; without it ResNets are left out")
    add(
        "--clamp-quantile",
        type=float,
        default=0.99,
        metavar="Q",
        help="cut the factors' values off at this quantile; 1 cuts nothing and is the most exact",
    )
    add(
        "--min-diff",
        type=float,
        default=0.0,
        metavar="D",
        help="leave a text encoder out in which nothing changed by more than this",
    )
    add("--exact", action="store_true", help="decompose large layers exactly too: many times slower, hardly better")
    add("--verbose", action="store_true", help="print what is kept of every layer")
    add_result_arguments(parser, precision_help="number format written; without it the wider one of the models")


def run(args: argparse.Namespace, events: EventSink) -> dict[str, Any]:
    """Extract. Raises UserError when something is wrong, and then writes nothing."""
    from trainer.devices import choose_device, tool_device
    from trainer.lora.extract import ExtractSettings, extract_lora, widest_of, with_origins
    from trainer.lora.file import write_lora
    from trainer.lora.model_weights import ModelWeights, open_model
    from trainer.lora.outputs import lora_file_problems

    settings = ExtractSettings(args.rank, args.conv_rank, args.clamp_quantile, args.min_diff, args.exact)
    problems = [*settings.problems(), *_same_model(args.base, args.tuned)]
    problems += lora_file_problems(
        args.out, [Path(args.base).expanduser(), Path(args.tuned).expanduser()], overwrite=args.overwrite
    )
    attempt(problems, lambda: choose_device(args.device))
    with ExitStack() as stack:

        def opened(field: str, model: str) -> ModelWeights | None:
            return attempt(problems, lambda: stack.enter_context(open_model(model, field=field, events=events)))

        base, tuned = opened("base", args.base), opened("tuned", args.tuned)
        if problems or base is None or tuned is None:
            raise UserError.many(problems)
        precision = args.save_precision or widest_of([base, tuned])
        with tool_device(args.device, f"extraction of {args.out.name}", events) as device:
            lora, report = extract_lora(base, tuned, settings, precision=precision, device=device, events=events)
        hashes = {"base": base.sha256(events), "tuned": tuned.sha256(events)}
    write_lora(args.out, with_origins(lora, **hashes), precision=precision)
    return {
        "out": str(args.out),
        "base": args.base,
        "tuned": args.tuned,
        "sha256": hashes,
        "family": base.family,
        "precision": precision,
        "size_bytes": args.out.stat().st_size,
        "ranks": dict(sorted(Counter(layer.rank for layer in report.layers).items())),
        "error": report.error,
        "not_carried": report.not_carried,
        "left_out": report.left_out,
        "unchanged": report.unchanged,
        "layers": [asdict(layer) for layer in report.layers],
        "verbose": args.verbose,
    }


def describe(answer: dict[str, Any]) -> str:
    """What the LoRA holds of the difference, and what not; with ``--verbose`` of each layer."""
    lines = [f"{'layer':<76}{'rank':>6}{'norm':>10}{'kept':>8}{'error':>8}"] if answer["verbose"] else []
    for layer in answer["layers"] if answer["verbose"] else []:
        numbers = f"{layer['rank']:>6}{layer['norm']:>10.4g}{layer['norm_kept']:>8.1%}{layer['error']:>8.1%}"
        lines.append(f"{layer['module']:<76}{numbers}")
    ranks = ", ".join(f"{rank} ({count} layers)" for rank, count in answer["ranks"].items())
    lines += [
        f"Written: {answer['out']}  {answer['size_bytes'] / 1e6:.1f} MB  {answer['precision']}",
        f"rank     {ranks}",
        f"error    {answer['error']:.2%} of the difference in these layers is lost",
    ]
    if answer["not_carried"] > 0:
        lines.append(f"besides  {answer['not_carried']:.2%} of the whole difference lies where this LoRA has no layers")
    if answer["unchanged"]:
        lines.append(f"equal    {len(answer['unchanged'])} layers have not changed and are left out")
    for part, largest in answer["left_out"].items():
        lines.append(f"left out {part}: nothing in it changed by more than {largest:.3g}")
    return "\n".join(lines)


def _same_model(base: str, tuned: str) -> list[Problem]:
    if base != tuned and Path(base).expanduser().resolve() != Path(tuned).expanduser().resolve():
        return []
    message = "tuned: it is the same model as base; there is no difference to extract."
    return [Problem("extract.same", message, "Choose the fine-tuned model.", "tuned")]

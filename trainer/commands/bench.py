"""``trainer bench``: measures the speed of training or of drawing, without a data set or a model."""

from __future__ import annotations

import argparse
from typing import Any

from trainer.config_io import apply_override, parse_config
from trainer.errors import UserError
from trainer.runs.events import EventSink


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the random model and of the steps to measure."""
    parser.add_argument("--pictures", action="store_true", help="measure drawing, beside plain diffusers")
    parser.add_argument("--family", default="sd1", help="model family")
    parser.add_argument("--size", choices=["demo", "full"], default="demo", help="size of the random model")
    parser.add_argument("--resolution", type=int, default=None, help="side of the pictures in pixels")
    parser.add_argument("--batch", type=int, default=1, help="pictures per step, or drawn at once")
    parser.add_argument("--rank", type=int, default=16, help="rank of the LoRA")
    parser.add_argument("--steps", type=int, default=20, help="steps to measure, or of a picture")
    parser.add_argument("--precision", default="auto", help="auto, no, fp16 or bf16")
    parser.add_argument("--set", action="append", default=[], metavar="a.b=value", help="change one setting")


def run(args: argparse.Namespace, events: EventSink) -> dict[str, Any]:
    """Measure, and answer with the times."""
    resolution = args.resolution or {"demo": 128, "full": 512}[args.size]
    if args.pictures:
        return _run_pictures(args, resolution, events)
    values: dict[str, Any] = {
        "name": "bench",
        "model": {"family": args.family},
        "dataset": {"resolution": resolution, "cache": {"to_disk": False}},
        "lora": {"rank": args.rank, "alpha": args.rank},
        "train": {"max_steps": args.steps, "batch_size": args.batch, "mixed_precision": args.precision},
    }
    for override in args.set:
        apply_override(values, override)
    config = parse_config(values)
    from trainer.bench import measure

    return vars(measure(config, size=args.size, model_given="base" in values["model"], events=events))


def _run_pictures(args: argparse.Namespace, resolution: int, events: EventSink) -> dict[str, Any]:
    if args.set:
        raise UserError("bench.set", "--set: these are settings of training.", "Leave --set or --pictures out.", "set")
    from trainer.picture_bench import measure_pictures

    return vars(
        measure_pictures(
            args.family,
            size=args.size,
            resolution=resolution,
            batch=args.batch,
            steps=args.steps,
            precision=args.precision,
            events=events,
        )
    )


def describe(answer: dict[str, Any]) -> str:
    """One measure a line."""
    return "\n".join(f"{name:<18} {value}" for name, value in answer.items())

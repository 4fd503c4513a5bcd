"""``trainer bench``: measures the speed of training or of drawing, without a data set or a model."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from trainer.config import Config
from trainer.config_io import apply_override, parse_config
from trainer.errors import UserError
from trainer.profiling.growth import growth_lines
from trainer.profiling.report import profile_lines
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
    parser.add_argument("--profile", action="store_true", help="also say where a step's time and memory go")
    parser.add_argument("--trace", type=Path, metavar="FILE.json", help="the profile's events, for ui.perfetto.dev")
    parser.add_argument("--table", action="store_true", help="how a step grows with batch, rank and resolution")
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
    _check_trace(args.trace)
    return _run_training(args, config, events)


def _run_training(args: argparse.Namespace, config: Config, events: EventSink) -> dict[str, Any]:
    from trainer.bench import measure, measure_and_profile, measure_growth

    what: Any = {"size": args.size, "model_given": "base" in config.model.model_fields_set, "events": events}
    if args.table:
        return {"rows": [vars(row) for row in measure_growth(config, **what)]}
    if not args.profile and args.trace is None:
        return vars(measure(config, **what))
    measured, profile = measure_and_profile(config, trace=args.trace, **what)
    return vars(measured) | {"profile": asdict(profile)}


def _check_trace(path: Path | None) -> None:
    """Raise UserError where a file would be overwritten."""
    if path is not None and path.exists():
        raise UserError("bench.trace", f"--trace: {path} is there already.", "Give another name.", "trace")


def _run_pictures(args: argparse.Namespace, resolution: int, events: EventSink) -> dict[str, Any]:
    for name in ("set", "profile", "trace", "table"):
        if vars(args)[name]:
            message = f"--{name} is about training, --pictures about drawing."
            raise UserError("bench.pictures", message, f"Leave --{name} or --pictures out.", name)
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
    """One measure a line, and the tables of a profile; or the table of a step's growth."""
    if "rows" in answer:
        return "\n".join(growth_lines(answer["rows"]))
    lines = [f"{name:<18} {value}" for name, value in answer.items() if name != "profile"]
    return "\n".join([*lines, *(["", *profile_lines(answer["profile"])] if "profile" in answer else [])])

"""``plan CONFIG.yaml``: what a run would do: buckets, steps, left-out pictures, memory, disk, time, warnings."""

from __future__ import annotations

import argparse
import dataclasses
import math
from pathlib import Path
from typing import Any

from trainer.commands.arguments import add_workspace, workspace_of
from trainer.config_io import load_config
from trainer.planner import plan
from trainer.runs.events import EventSink


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The config, as ``train`` takes it."""
    parser.add_argument("config", type=Path, metavar="CONFIG.yaml", help="the settings of the run")
    parser.add_argument("--set", action="append", default=[], metavar="a.b=value", help="override a setting")
    add_workspace(parser)


def run(args: argparse.Namespace, events: EventSink) -> dict[str, Any]:
    """Make the plan. Raises UserError for wrong settings, missing folders, or no pictures."""
    return dataclasses.asdict(plan(load_config(args.config, args.set), workspace_of(args)))


def describe(answer: dict[str, Any]) -> str:
    """The counts, the bucket table, the estimates and the warnings."""
    estimate = answer["estimate"]
    lines = [
        _pictures(answer),
        answer["arithmetic"],
        f"{answer['max_steps']} steps = {answer['epochs']:g} epochs",
        f"captions: {answer['captions']}",
        "",
        "bucket         pictures   views  batches  cut off",
        *(_bucket_row(bucket) for bucket in answer["buckets"]),
        "",
        f"GPU memory: about {_gib(estimate['vram_bytes'])} ({estimate['vram_note']})",
        f"disk:       about {_gib(estimate['disk_bytes'])}",
        f"time:       {_duration(estimate['seconds'])} ({estimate['seconds_note']})",
    ]
    lines += [f"left out: {note['path']}: {note['note']}" for note in answer["notes"]["skipped"]]
    lines += [f"warning: {each['message']} {each['hint']}".rstrip() for each in answer["warnings"]]
    return "\n".join(lines)


def _pictures(answer: dict[str, Any]) -> str:
    parts = [f"{answer['pictures']} pictures"]
    if answer["regularization_pictures"]:
        parts.append(f"{answer['regularization_pictures']} regularization pictures")
    if answer["validation_pictures"]:
        parts.append(f"{answer['validation_pictures']} held back for validation")
    return ", ".join(parts)


def _bucket_row(bucket: dict[str, Any]) -> str:
    size = f"{bucket['width']} x {bucket['height']}"
    return f"{size:<14}{bucket['pictures']:>9}{bucket['views']:>8}{bucket['batches']:>9}{bucket['cropped_share']:>8.0%}"


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**29 else f"{count / 2**20:.0f} MiB"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "unknown"
    if seconds < 90:
        return f"about {math.ceil(seconds)} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"about {hours} h {minutes} min" if hours else f"about {minutes} min"

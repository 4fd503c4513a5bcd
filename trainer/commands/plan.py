"""``plan CONFIG.yaml``: what a run would do: buckets, steps, left-out pictures, memory, disk, time, warnings."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import shlex
from pathlib import Path
from typing import Any

from trainer.commands.arguments import add_workspace, workspace_of
from trainer.config_io import load_config
from trainer.plan_room import MEMORY_VARIABLE, kind_here, room_here
from trainer.planner import plan
from trainer.runs.events import EventSink


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The config, as ``train`` takes it, and the memory that it should fit into."""
    parser.add_argument("config", type=Path, metavar="CONFIG.yaml", help="the settings of the run")
    parser.add_argument("--set", action="append", default=[], metavar="a.b=value", help="override a setting")
    parser.add_argument("--fit", action="store_true", help="look for settings that fit the memory and learn the same")
    parser.add_argument(
        "--memory", metavar="8GB", help=f"plan for a GPU with so much free memory; also {MEMORY_VARIABLE}"
    )
    parser.add_argument("--measure", action="store_true", help="train some steps first, to know how long they take")
    parser.add_argument("--pictures", action="store_true", help="also tell where each picture comes")
    parser.add_argument(
        "--processes", type=int, default=1, metavar="N", help="plan for N processes that train together"
    )
    add_workspace(parser)


def run(args: argparse.Namespace, events: EventSink) -> dict[str, Any]:
    """Make the plan. Raises UserError for wrong settings, missing folders, or no pictures."""
    config, workspace = load_config(args.config, args.set), workspace_of(args)
    room = room_here(args.memory)
    if args.measure:
        from trainer.measuring import measure  # only then: it needs torch

        measure(config, workspace, events)
    found = plan(
        config,
        workspace,
        room,
        fitted=args.fit,
        pictures=args.pictures,
        processes=max(1, args.processes),
        kind=kind_here(args.memory),
    )
    return {name: value for name, value in dataclasses.asdict(found).items() if value is not None}


def describe(answer: dict[str, Any]) -> str:
    """The counts, the bucket table, the estimates, the warnings, and what fits."""
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
        f"{_memory_of(estimate)}: about {_gib(estimate['vram_bytes'])} ({estimate['vram_note']})",
        *_room(estimate),
        *_measured(estimate),
        f"disk:       about {_gib(estimate['disk_bytes'])}, {_gib(estimate['disk_free_bytes'])} are free",
        f"time:       {_duration(estimate['seconds'])} ({estimate['seconds_note']})",
        *(f"{marks['what'] + ':':<13}{marks['count']} times" for marks in answer["timeline"]["marks"]),
    ]
    for kind, what in (("skipped", "left out"), ("unused", "not used")):
        lines += [f"{what}: {note['path']}: {note['note']}" for note in answer["notes"][kind]]
    lines += [line for warning in answer["warnings"] for line in _warning(warning)]
    return "\n".join([*lines, *_fitted(answer.get("fitted"))])


def _memory_of(estimate: dict[str, Any]) -> str:
    room = estimate["room"]
    return "memory" if room and room["kind"] == "cpu" else "GPU memory"


def _room(estimate: dict[str, Any]) -> list[str]:
    room = estimate["room"]
    if room is None:
        return []
    verdict = "fits" if estimate["fits"] else "does not fit"
    lines = [f"            {verdict} in {_gib(room['free_bytes'])} free of {_gib(room['total_bytes'])}, {room['name']}"]
    parts = [f"{name} {_gib(count)}" for name, count in estimate["vram_parts"].items() if count]
    others = [f"{each['name']} holds {_gib(each['bytes'])}" for each in room["holders"] if not each["ours"]]
    return [*lines, f"            {', '.join(parts)}", *(f"            {each}" for each in others)]


def _measured(estimate: dict[str, Any]) -> list[str]:
    measured = estimate["measured_bytes"]
    return [f"            measured: {_gib(measured)}, without CUDA's own"] if measured else []


def _warning(warning: dict[str, Any]) -> list[str]:
    fixes = [
        f"    {fix['label']}{': ' + fix['cost'] if fix['cost'] else ''}: {_settings(fix['changes'])}"
        for fix in warning["fixes"]
    ]
    return [f"warning: {warning['message']} {warning['hint']}".rstrip(), *fixes]


def _fitted(fitted: dict[str, Any] | None) -> list[str]:
    """What ``--fit`` found, as lines to read and settings to take over."""
    if fitted is None:
        return []
    verdict = "fits" if fitted["fits"] else "does not fit, even so"
    room = f"{_gib(fitted['bytes_after'])} of {_gib(fitted['usable_bytes'])} that may be used"
    if not fitted["steps"]:
        return ["", f"fitted: {verdict} as it is, {room}"]
    steps = [f"    {each['label']}: {each['reason']} ({_gib(each['bytes_after'])})" for each in fitted["steps"]]
    return ["", f"fitted: {verdict}, {room}", *steps, f"    {_settings(fitted['changes'])}"]


def _settings(changes: dict[str, Any]) -> str:
    return " ".join(f"--set {shlex.quote(f'{name}={_plain(value)}')}" for name, value in changes.items())


def _plain(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


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

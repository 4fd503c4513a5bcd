"""``trainer inspect FILE``: what is in a LoRA file."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from trainer.runs.events import EventSink


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The file."""
    parser.add_argument("file", type=Path, help="LoRA in .safetensors form")


def run(args: argparse.Namespace, events: EventSink) -> dict[str, Any]:
    """Look into the file. Raises UserError when it is not a LoRA."""
    from trainer.lora.inspect import inspect_lora

    return inspect_lora(args.file)


def describe(answer: dict[str, Any]) -> str:
    """The answer as a page of text."""
    parts = ", ".join(f"{name} {count}" for name, count in answer["parts"].items())
    lines = [
        f"{answer['file']}  {answer['size_bytes'] / 1e6:.1f} MB  {answer['precision']}",
        f"family   {answer['family']}",
        f"kind     {_listing(answer['kinds'])}",
        f"layers   {answer['modules']} ({parts}; {answer['convolutions']} large convolutions)",
        f"rank     {_listing(answer['ranks'])}",
        f"alpha    {_listing(answer['alphas'])}",
        f"trigger  {answer['trigger'] or ', '.join(answer['frequent_tags']) or 'not told'}",
        "",
        f"{'block':<32}{'layers':>8}{'norm':>10}",
        *(f"{row['block']:<32}{row['layers']:>8}{row['norm']:>10.3f}" for row in answer["blocks"]),
        "",
        *(f"{key}: {_short(value)}" for key, value in answer["metadata"].items()),
        *(f"not understood: {key}" for key in answer["unknown_keys"]),
    ]
    return "\n".join(lines)


def _listing(counts: dict[str, int]) -> str:
    if len(counts) == 1:
        return next(iter(counts))
    return ", ".join(f"{value} ({count} layers)" for value, count in counts.items())


def _short(text: str) -> str:
    return text if len(text) <= 100 else text[:97] + "..."

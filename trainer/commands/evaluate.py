"""``evaluate RUN_DIR``: how good each checkpoint of a run is, and which is the best."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from trainer.commands.arguments import add_gpu_sharing, add_workspace, workspace_of
from trainer.evaluating.results import BASE_STEP
from trainer.evaluating.settings import METRICS, parse_evaluation
from trainer.runs.events import EventSink
from trainer.runs.store import Run

_COLUMNS = {
    "validation_loss": "validation",
    "drift": "drift",
    "image_similarity": "pictures",
    "prompt_similarity": "prompts",
    "copies": "copies",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The run, its checkpoints, and what to measure."""
    add = parser.add_argument
    add("run_dir", type=Path, metavar="RUN_DIR")
    add("--checkpoint", type=int, action="append", default=[], metavar="STEP", help="may be given several times")
    add("--metrics", nargs="+", choices=METRICS, help="what to measure; without: all that need no other model")
    add("--model", help="folder or Hugging Face id of a CLIP or DINOv2 model, for similarity")
    add("--pictures", type=int, help="pictures drawn of each checkpoint")
    add("--steps", type=int, help="denoising steps; without: those of the prompts")
    add("--drift-prompt", action="append", metavar="P", help="a prompt without the trigger; may be given several times")
    add_gpu_sharing(parser)
    add_workspace(parser)


def run(args: argparse.Namespace, events: EventSink) -> dict[str, Any]:
    """Evaluate. Raises UserError when the run or the settings do not allow it."""
    names = ("metrics", "model", "pictures", "steps")
    values = {name: getattr(args, name) for name in names} | {"drift_prompts": args.drift_prompt}
    settings = parse_evaluation(values)
    known_run = Run(args.run_dir.expanduser().resolve())
    known_run.read()
    from trainer.evaluating.evaluate import evaluate

    in_workspace = known_run.dir.parent.name == "runs" and args.workspace is None
    workspace = known_run.workspace if in_workspace else workspace_of(args)
    found = evaluate(known_run, settings, args.checkpoint, workspace=workspace, events=events, share_gpu=args.share_gpu)
    return {"run": known_run.id, **found.model_dump()}


def describe(answer: dict[str, Any]) -> str:
    """A line for each checkpoint, which is the best and why, and the hints."""
    rows = answer["checkpoints"]
    shown = [name for name in _COLUMNS if any(row[name] is not None for row in rows)]
    lines = ["step".ljust(12) + "".join(_COLUMNS[name].rjust(12) for name in shown)]
    for row in rows:
        name = "base model" if row["step"] == BASE_STEP else str(row["step"])
        mark = "  best" if row["step"] == answer["best"] else ""
        lines.append(name.ljust(12) + "".join(_cell(row[each]).rjust(12) for each in shown) + mark)
    pictures = "held-out" if answer["held_out"] else "trained"
    lines.append(f"validation: {answer['validated_pictures']} {pictures} pictures")
    best = "No best checkpoint." if answer["best"] is None else f"Best: step {answer['best']}."
    return "\n".join([*lines, f"{best} {answer['why']}", *answer["hints"]])


def _cell(value: float | int | None) -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.4g}"

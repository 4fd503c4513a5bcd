"""``trainer train``: a new run, trained in the foreground."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from trainer.commands.arguments import add_gpu_sharing, add_workspace, workspace_of
from trainer.config_io import load_config
from trainer.errors import UserError
from trainer.loading import load_train
from trainer.runs.events import EventSink
from trainer.runs.store import Run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The config and where the run goes."""
    parser.add_argument("config", type=Path, metavar="CONFIG.yaml")
    parser.add_argument("--set", action="append", default=[], metavar="a.b=value", help="change one setting")
    add_workspace(parser)
    parser.add_argument("--run-dir", type=Path, default=None, help="folder for the run, in place of a new one")
    add_gpu_sharing(parser)


def run(args: argparse.Namespace, events: EventSink) -> dict[str, Any]:
    """Train a new run. Raises UserError for wrong settings; a run that could not even begin leaves no folder."""
    config, workspace = load_config(args.config, args.set), workspace_of(args)
    train = load_train()  # after the config: a typing slip need not wait for torch
    run_dir = args.run_dir.expanduser().resolve() if args.run_dir else None
    new_run = workspace.create_run(config, run_dir, queued=False)
    try:
        outcome = train(new_run, workspace=workspace, events=events, share_gpu=args.share_gpu)
    except UserError:
        if new_run.read().step == 0:
            workspace.delete_run(new_run)
        raise
    return answer_of(new_run, vars(outcome))


def answer_of(run: Run, outcome: dict[str, Any]) -> dict[str, Any]:
    """What ``train`` and ``resume`` answer."""
    return {
        "run_dir": str(run.dir),
        "state": run.read().state,
        "step": outcome["step"],
        "lora": str(outcome["lora_path"]),
        "seconds": round(outcome["seconds"], 2),
        "loss": outcome["loss"],
    }


def describe(answer: dict[str, Any]) -> str:
    """What became of the run, in three lines."""
    return f"{answer['state']} at step {answer['step']}\nLoRA: {answer['lora']}\nRun:  {answer['run_dir']}"

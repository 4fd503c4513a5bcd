"""``trainer train``: a new run, trained in the foreground."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from trainer.commands.arguments import add_gpu_sharing, add_host, add_workspace, host_asked, workspace_of
from trainer.config_io import load_config
from trainer.errors import UserError
from trainer.launching import add_processes, launch_of, train_together
from trainer.loading import load_train
from trainer.ranks import ranks_of_launch
from trainer.remote.driving import train_elsewhere
from trainer.runs.events import EventSink, read_events
from trainer.runs.store import Run, Workspace


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The config and where the run goes."""
    parser.add_argument("config", type=Path, metavar="CONFIG.yaml")
    parser.add_argument("--set", action="append", default=[], metavar="a.b=value", help="change one setting")
    add_workspace(parser)
    parser.add_argument("--run-dir", type=Path, default=None, help="folder for the run, in place of a new one")
    add_gpu_sharing(parser)
    add_processes(parser)
    add_host(parser)


def run(args: argparse.Namespace, events: EventSink) -> dict[str, Any]:
    """Train a new run. Raises UserError for wrong settings; a run that could not even begin leaves no folder."""
    config, workspace = load_config(args.config, args.set), workspace_of(args)
    run_dir = args.run_dir.expanduser().resolve() if args.run_dir else None
    host = host_asked(args, workspace)
    if host is not None:
        begun = time.monotonic()
        new_run = workspace.create_run(config, run_dir, queued=False, wanted_device=host.device)
        with _deleted_if_nothing_came_of(new_run, workspace):
            train_elsewhere(new_run, host, events)
        return answer_of_launch(new_run, begun)
    launch = launch_of(args)
    if launch is not None:
        begun, new_run = time.monotonic(), workspace.create_run(config, run_dir, queued=False)
        with _deleted_if_nothing_came_of(new_run, workspace):
            train_together(new_run, workspace, launch, share_gpu=args.share_gpu)
        return answer_of_launch(new_run, begun)
    train = load_train(config.model)  # after the config: a typing slip need not wait for torch
    with ranks_of_launch() as ranks:
        new_run = ranks.share(lambda: workspace.create_run(config, run_dir, queued=False))
        with _deleted_if_nothing_came_of(new_run, workspace) if ranks.leads else nullcontext():
            outcome = train(new_run, workspace=workspace, events=events, share_gpu=args.share_gpu, ranks=ranks)
    return answer_of(new_run, vars(outcome))


@contextmanager
def _deleted_if_nothing_came_of(run: Run, workspace: Workspace) -> Iterator[None]:
    try:
        yield
    except UserError:
        if run.read().step == 0 and run.read().host is None:
            workspace.delete_run(run)
        raise


def answer_of_launch(run: Run, begun: float) -> dict[str, Any]:
    """What ``train`` and ``resume`` answer of a run that other processes have trained since ``begun`` (monotonic)."""
    losses = [event["loss"] for event in read_events(run.events_path) if event["type"] == "metric"]
    info = run.read()
    loss, seconds = losses[-1] if losses else None, time.monotonic() - begun
    return answer_of(run, {"step": info.step, "lora_path": run.output_path, "seconds": seconds, "loss": loss})


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

"""``trainer resume``: start a queued run, continue a stopped or failed one, or extend a finished one."""

from __future__ import annotations

import argparse
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from trainer.commands.arguments import add_gpu_sharing, add_host, add_workspace, host_asked, workspace_of
from trainer.commands.train import answer_of, answer_of_launch, describe
from trainer.config import ModelSettings
from trainer.config_io import save_config
from trainer.errors import UserError
from trainer.launching import add_processes, launch_of, train_together
from trainer.loading import load_train
from trainer.processes import launchers
from trainer.ranks import ranks_of_launch
from trainer.remote.driving import train_elsewhere
from trainer.runs import control
from trainer.runs.events import EventSink
from trainer.runs.store import ALIVE, Run, this_process

__all__ = ["add_arguments", "describe", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The run and how far to go."""
    parser.add_argument("run_dir", type=Path, metavar="RUN_DIR")
    parser.add_argument("--max-steps", type=int, default=None, help="go on to this many steps")
    add_gpu_sharing(parser)
    add_processes(parser)
    add_host(parser)
    add_workspace(parser)


def run(args: argparse.Namespace, events: EventSink) -> dict[str, Any]:
    """Train on. Raises UserError when the run cannot go on."""
    known_run = Run(args.run_dir.expanduser().resolve())
    in_workspace = known_run.dir.parent.name == "runs" and args.workspace is None
    workspace = known_run.workspace if in_workspace else workspace_of(args)
    host = host_asked(args, workspace)
    if host is not None:
        begun = time.monotonic()
        take_over(known_run, args.max_steps, on=host.name)
        train_elsewhere(known_run, host, events)
        return answer_of_launch(known_run, begun)
    launch = launch_of(args)
    if launch is not None:
        begun = time.monotonic()
        take_over(known_run, args.max_steps)
        train_together(known_run, workspace, launch, share_gpu=args.share_gpu)
        return answer_of_launch(known_run, begun)
    with ranks_of_launch() as ranks:
        ranks.share(lambda: take_over(known_run, args.max_steps))
        train = load_train(_model_of(known_run))
        asked = args.share_gpu if known_run.read().queue_device is None else None  # the queue's runs take turns
        outcome = train(known_run, workspace=workspace, events=events, share_gpu=asked, ranks=ranks)
    return answer_of(known_run, vars(outcome))


def _model_of(run: Run) -> ModelSettings | None:
    """What is trained on; None where the settings cannot be read, which training tells and notes."""
    with suppress(UserError):
        return run.config().model
    return None


def take_over(run: Run, max_steps: int | None = None, on: str | None = None) -> None:
    """Check that the run can go on, make it this process's own, and take in a new number of steps. Raises UserError."""
    with run.lock():
        info = run.status_locked()
        started_by_queue = info.state == "starting" and info.pid in (os.getpid(), *launchers())
        if info.state in ALIVE and not started_by_queue:
            message = f"The run {run.id} is {info.state} in process {info.pid}."
            raise UserError("run.alive", message, "Wait for its end, or stop it first.")
        if info.host is not None and info.host != on:
            message = f"The run {run.id} goes on on {info.host}."
            hint = (
                f"`resume --on {info.host}` follows it; it can be stopped then. `remote give-up` if it is lost there."
            )
            raise UserError("run.elsewhere", message, hint)
        if max_steps is not None and max_steps <= info.step:
            message = f"--max-steps {max_steps}: the run {run.id} has done {info.step} steps already."
            raise UserError("run.max_steps", message, f"Give more than {info.step}.", "train.max_steps")
        if info.state == "finished" and max_steps is None:
            message = f"The run {run.id} is finished, with {info.step} steps."
            raise UserError("run.finished", message, f"To extend it, give --max-steps with more than {info.step}.")
        if not started_by_queue and info.host is None:
            control.clear(run.control_dir)
        if max_steps is not None:
            config = run.config()
            config.train.max_steps, config.train.epochs = max_steps, None
            save_config(config, run.config_path)
            run.update_locked(max_steps=max_steps, extend_to=None, extended=time.time())
        if not started_by_queue:  # no worker may start it while this process loads what it needs
            run.update_locked(state="starting", queue_device=None, launched=None, interrupted=None, **this_process())

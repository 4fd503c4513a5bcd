"""A short measurement on request: some steps of the very run, with nothing saved but how long they took."""

from __future__ import annotations

import shutil
import time
from typing import Any

from trainer.config import Config
from trainer.errors import JobFailed, Problem
from trainer.measurements import keep_measurement, of_events
from trainer.plan_fixes import changed
from trainer.recipe import train
from trainer.runs.events import EventSink, read_events
from trainer.runs.store import Workspace

STEPS = 6

_NOTHING_BESIDES: dict[str, Any] = {
    "name": "measurement",
    "train.max_steps": STEPS,
    "train.epochs": None,
    "train.lr_warmup_steps": 0,
    "train.lr_decay_steps": None,
    "samples.every_steps": 0,
    "samples.every_epochs": None,
    "samples.at_start": False,
    "samples.prompts": [],
    "validation.split": 0.0,
    "validation.path": None,
    "validation.early_stop_patience": None,
    "output.save_every_steps": 0,
    "output.save_every_epochs": None,
    "output.save_at": [],
    "output.keep_best": False,
    "output.use_best": False,
    "trackers": [],
}


def measure(config: Config, workspace: Workspace, events: EventSink) -> None:
    """Train some steps and keep what they took for ``measured``. Caches stay, for the run itself.

    Raises what ``recipe.train`` raises; JobFailed where no step was timed.
    """
    folder = workspace.dir / "tmp" / f"measurement-{time.time_ns()}"
    run = workspace.create_run(changed(config, _NOTHING_BESIDES), folder, queued=False)
    try:
        train(run, workspace=workspace, events=events)
        found = of_events(read_events(run.events_path), config)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if found is None:
        raise JobFailed(Problem("plan.measure", "No step was timed.", "Try again."))
    keep_measurement(workspace, config, *found)

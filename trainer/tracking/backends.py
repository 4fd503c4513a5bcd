"""Each tracker by its name: how Accelerate's is started, and how it takes a picture.

Packages are imported when a tracker starts. Nothing of the machine is sent that was not asked for: no console, no
source code, no command line, no host name.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from trainer.config_tracking import Tracker
from trainer.tracking.plain_settings import Plain

KEY_OF_WANDB = "WANDB_API_KEY"


@dataclass(frozen=True)
class Start:
    """What a tracker begins with.

    Attributes:
        folder: where it may keep files.
        project: what runs are filed under.
        name: of the run.
        id: by which a resumed run is found again.
        step: the step that it goes on from; 0 for a new run.
        settings: of the run, see ``plain_settings``.
    """

    folder: Path
    project: str
    name: str
    id: str
    step: int
    settings: dict[str, Plain]


@dataclass(frozen=True)
class Backend:
    """A kind of tracker.

    Attributes:
        package: what must be installed.
        start: gives one of Accelerate's trackers, started.
        log_picture: tracker, name, picture, prompt, step.
        notice: what its user should know before it starts; empty for nothing.
    """

    package: str
    start: Callable[[Start], Any]
    log_picture: Callable[[Any, str, Image.Image, str, int], None]
    notice: Callable[[], str] = lambda: ""


def _start_tensorboard(start: Start) -> Any:
    """The same folder for a resumed run; what was written beyond its checkpoint is dropped from the curves."""
    from accelerate.tracking import TensorBoardTracker

    purge = {"purge_step": start.step + 1} if start.step else {}
    tracker = TensorBoardTracker("tensorboard", start.folder, **purge)
    tracker.start()
    tracker.log({"settings": f"<pre>{json.dumps(start.settings, indent=2)}</pre>"}, step=start.step)
    return tracker


def _picture_to_tensorboard(tracker: Any, name: str, picture: Image.Image, prompt: str, step: int) -> None:
    tracker.log_images({name: np.asarray(picture)[None]}, step=step, dataformats="NHWC")
    tracker.log({f"{name} prompt": prompt}, step=step)


def _start_wandb(start: Start) -> Any:
    import wandb
    from accelerate.tracking import WandBTracker

    settings = wandb.Settings(
        console="off",
        disable_code=True,
        disable_git=True,
        silent=True,
        x_disable_machine_info=True,
        x_disable_meta=True,
        x_disable_stats=True,
        x_save_requirements=False,
    )
    start.folder.mkdir(parents=True, exist_ok=True)
    tracker = WandBTracker(
        start.project,
        id=start.id,
        name=start.name,
        resume="allow",
        dir=str(start.folder),
        mode=_wandb_mode(),
        config=start.settings,
        settings=settings,
    )
    tracker.start()
    return tracker


def _wandb_mode() -> Any:
    """As the environment says; without a key there, kept on this machine."""
    return os.environ.get("WANDB_MODE") or ("online" if os.environ.get(KEY_OF_WANDB) else "offline")


def _notice_of_wandb() -> str:
    if os.environ.get("WANDB_MODE") or os.environ.get(KEY_OF_WANDB):
        return ""
    return f"{KEY_OF_WANDB} is not set in the environment: W&B's files stay in the run's folder, for `wandb sync`."


def _picture_to_wandb(tracker: Any, name: str, picture: Image.Image, prompt: str, step: int) -> None:
    import wandb

    tracker.log({name: wandb.Image(picture, caption=prompt)}, step=step)


def _start_trackio(start: Start) -> Any:
    """It finds runs by name, so the id is part of it."""
    from accelerate.tracking import TrackioTracker

    tracker = TrackioTracker(
        start.project,
        name=f"{start.name}-{start.id}",
        resume="allow",
        config=start.settings,
        embed=False,
        auto_log_cpu=False,
        auto_log_gpu=False,
    )
    tracker.start()
    return tracker


def _picture_to_trackio(tracker: Any, name: str, picture: Image.Image, prompt: str, step: int) -> None:
    import trackio

    tracker.log({name: trackio.Image(picture, caption=prompt)}, step=step)


BACKENDS: dict[Tracker, Backend] = {
    "tensorboard": Backend("tensorboard", _start_tensorboard, _picture_to_tensorboard),
    "wandb": Backend("wandb", _start_wandb, _picture_to_wandb, _notice_of_wandb),
    "trackio": Backend("trackio", _start_trackio, _picture_to_trackio),
}

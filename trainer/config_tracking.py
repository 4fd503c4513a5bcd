"""The settings of experiment trackers. Their keys are no settings: they come from the environment."""

from __future__ import annotations

from typing import Literal

from trainer.config_base import Section, setting
from trainer.config_relevance import is_set

Tracker = Literal["tensorboard", "wandb", "trackio"]


class TrackingSettings(Section):
    """What trackers are told, where there are any."""

    project: str = setting(
        "lora-atelier", "Project", also=("log_tracker_name", "wandb_project"), relevant=is_set("trackers"), min_length=1
    )
    """The project that W&B and trackio file the run under."""
    pictures: bool = setting(True, "Send previews", relevant=is_set("trackers"))
    """Previews go to the trackers too, with their prompts."""
    paths: bool = setting(False, "Send paths", relevant=is_set("trackers"))
    """The settings that are sent hold the full paths of models and pictures; otherwise only the last part of each."""

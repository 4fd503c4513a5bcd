"""``WORKSPACE/settings.json``: what holds for all runs of a workspace. Secrets are not kept here, or anywhere."""

from __future__ import annotations

from collections.abc import Callable

from pydantic import BaseModel, ConfigDict

from trainer.files import read_json, write_json
from trainer.runs.store import Workspace


class AppSettings(BaseModel):
    """Settings of this workspace."""

    model_config = ConfigDict(extra="ignore")

    folders: list[str] = []
    """Folders outside the workspace that the page may read and write."""
    theme: str = "system"
    """light, dark or system."""
    studio_idle_minutes: int = 10
    """Minutes after which the loaded picture model is let go."""
    trainer_ready_minutes: int = 10
    """Minutes that a loaded trainer waits for a start after the page last led to expect one; 0 for none."""
    hung_run_minutes: int = 240
    """Minutes after which a run that does nothing any more is ended, as failed; 0 for never."""
    looking_model: str = ""
    """Folder or hub id of the model that looks at pictures in evaluations; empty for none."""
    allowed_optimizers: list[str] = []
    """Classes, as ``package.Class``, that a config's ``train.optimizer_class`` may name; nothing else is imported."""


def read_settings(workspace: Workspace) -> AppSettings:
    """The settings, or the defaults where there is no readable file yet."""
    try:
        return AppSettings.model_validate(read_json(workspace.dir / "settings.json"))
    except (FileNotFoundError, ValueError):
        return AppSettings()


def write_settings(workspace: Workspace, settings: AppSettings) -> None:
    """Write the settings atomically."""
    write_json(workspace.dir / "settings.json", settings.model_dump())


def change_settings(workspace: Workspace, change: Callable[[AppSettings], AppSettings]) -> AppSettings:
    """Write what ``change`` makes of the settings as they are, and return that. Raises what ``change`` raises.

    Changes that several windows or apps make at once are all made: one after the other.
    """
    with workspace.lock("settings"):
        changed = change(read_settings(workspace))
        write_settings(workspace, changed)
    return changed

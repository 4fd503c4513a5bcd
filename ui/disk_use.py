"""What lies in the workspace and how much room it takes. No Gradio."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from trainer.caches import COMPUTED, CONVERTED, delete_caches
from trainer.grids.store import grids_dir
from trainer.runs.bin import Bin
from trainer.runs.store import Workspace
from trainer.single_file.cache import cache_dir as models_cache
from ui.run_view import file_size


@dataclass(frozen=True)
class Place:
    """A folder of the workspace, and what is kept there."""

    title: str
    about: str
    path: Path


def places(workspace: Workspace) -> list[Place]:
    """Where files go, most wanted first."""
    return [
        Place("Runs", "each with its settings, log, previews, checkpoints and finished LoRA", workspace.runs_dir),
        Place("Bin", "deleted runs, checkpoints and pictures; emptied on the Runs tab", Bin(workspace.dir).dir),
        Place("Merged models", "what the Merge tab saves", workspace.models_dir),
        Place("Pictures", "what the Generate tab makes", workspace.pictures_dir),
        Place("Grids", "pictures side by side, and their sheets", grids_dir(workspace)),
        Place("Pictures to start from", "what was given to the Generate tab", workspace.inputs_dir),
        Place("Datasets", "uploaded and generated pictures", workspace.datasets_dir),
        Place("Presets", "your own", workspace.dir / "presets"),
        Place("Caches", "made anew when needed", workspace.cache_dir),
        Place("Converted models", f"made of single files when needed, in {models_cache()}", models_cache()),
        Place("Jobs", "checks, captions and merges", workspace.jobs_dir),
        Place("Logs", "what the page itself has to say", workspace.dir / "logs"),
    ]


def free_text(workspace: Workspace) -> str:
    """``120.5 GB free``."""
    return f"{file_size(shutil.disk_usage(workspace.dir).free)} free"


def clear_caches(workspace: Workspace) -> int:
    """Delete what was computed; returns the bytes freed. Raises UserError while a run is going."""
    return delete_caches(workspace, [COMPUTED])


def clear_converted_models(workspace: Workspace) -> int:
    """Delete the folders made of single-file models; returns the bytes freed. Raises UserError while a run is going."""
    return delete_caches(workspace, [CONVERTED])

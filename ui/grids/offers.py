"""Values that the page offers for an axis, and the axes that compare the checkpoints of a run. No gradio in here."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, TypedDict

from trainer.checkpoint_folders import LORA, checkpoints, step_of
from trainer.errors import UserError
from trainer.grids.axes import NO_LORA
from trainer.runs.store import Run, Workspace
from trainer.sampler_names import SAMPLER_NAMES, SCHEDULE_NAMES
from ui.lora_choices import known_models

CHECKPOINT_WEIGHTS = "0.4-1.2 (+0.2)"


class Offer(TypedDict):
    """Values that belong together: pairs of what is shown and what is meant."""

    group: str
    items: list[tuple[str, str]]


def offers(workspace: Workspace, kind: str) -> list[Offer]:
    """What is offered for a kind of axis; nothing for numbers and texts."""
    if kind == "lora":
        return _loras(workspace)
    if kind == "model":
        return [{"group": "Models", "items": known_models(workspace)}]
    if kind == "sampler":
        return [{"group": "Samplers", "items": [(name, name) for name in SAMPLER_NAMES.values()]}]
    if kind == "schedule":
        return [{"group": "Schedules", "items": [(name, name) for name in SCHEDULE_NAMES.values()]}]
    return []


def checkpoint_axes(run: Run) -> dict[str, Any]:
    """Every checkpoint of a run, from left to right, at several weights. Raises UserError where it has none."""
    values = [value for _, value in _of_run(run)]
    if not values:
        raise UserError("grid.no_checkpoints", f"{run.read().name} has no checkpoints yet.", "Wait for the first one.")
    return {"x": {"kind": "lora", "values": values}, "y": {"kind": "weight", "values": CHECKPOINT_WEIGHTS}}


def _loras(workspace: Workspace) -> list[Offer]:
    """Merged LoRAs, then each run's checkpoints and its finished LoRA, newest run first."""
    merged = [(path.stem, str(path)) for path in sorted(workspace.models_dir.glob("*.safetensors"))]
    found: list[Offer] = [{"group": "Without", "items": [("no LoRA", NO_LORA)]}]
    found += [{"group": "Merged LoRAs", "items": merged}] if merged else []
    for run in workspace.runs():
        with suppress(UserError):
            items = _of_run(run)
            if run.output_path.is_file():
                items.append(("finished", str(run.output_path)))
            if items:
                found.append({"group": run.read().name, "items": items})
    return found


def _of_run(run: Run) -> list[tuple[str, str]]:
    saved = [folder for folder in checkpoints(run.checkpoints_dir) if (folder / LORA).is_file()]
    return [(f"step {step_of(folder)}", str(folder / LORA)) for folder in saved]

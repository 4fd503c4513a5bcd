"""Several runs beside each other: how they ended, and in which settings they differ. No gradio in here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from trainer.config import Config
from trainer.errors import UserError
from trainer.runs.store import Run, Workspace
from ui.fields import CONFIG_FIELDS, Field
from ui.run_html import STATE_WORDS
from ui.run_view import RunReaders, duration, file_size
from ui.runs.compared_evaluations import compared

MOST_RUNS = 8
NOT_GIVEN = "–"
_OF_THE_RUN = ("version", "name")
"""Differ between any two runs and say nothing."""


def compare(workspace: Workspace, readers: RunReaders, ids: Sequence[str]) -> dict[str, Any]:
    """The runs of these ids as the scripts take them; those that are gone are left out.

    ``runs`` have ``id``, ``name``, ``results`` and ``previews``, which changes with the pictures; ``differences`` have
    a label, the setting's name and a value for each run. All values are texts. ``evaluations``: see ``compared``.
    """
    runs: list[Run] = []
    for run_id in ids:
        with suppress(UserError):
            runs.append(workspace.run(run_id))
    answers = [
        {
            "id": run.id,
            "name": run.read().name,
            "results": results(readers, run),
            "previews": readers.of(run).view().wall_version,
        }
        for run in runs
    ]
    return {
        "runs": answers,
        "differences": differences([config_of(run) for run in runs]),
        "evaluations": compared(runs),
    }


def results(readers: RunReaders, run: Run) -> dict[str, str]:
    """How far a run came, in words, by what it is called."""
    reader = readers.of(run)
    view, figures = reader.view(), reader.figures()
    lora = run.output_dir / f"{view.info.name}.safetensors"
    best = figures.best_validation
    return {
        "State": STATE_WORDS[view.info.state],
        "Steps": f"{view.info.step} of {view.info.max_steps}" if view.info.max_steps else str(view.info.step),
        "Loss at the end, smoothed": NOT_GIVEN if figures.loss is None else f"{figures.loss:.4g}",
        "Best validation loss": NOT_GIVEN if best is None else f"{best[1]:.4g} at step {best[0]}",
        "Training time": duration(figures.seconds) if figures.seconds else NOT_GIVEN,
        "LoRA file": file_size(lora.stat().st_size) if lora.is_file() else NOT_GIVEN,
    }


def differences(configs: Sequence[Config | None]) -> list[dict[str, Any]]:
    """The settings that are not the same in all configs; a config that cannot be read has no values."""
    dumped = [None if config is None else config.model_dump(mode="json") for config in configs]
    found = []
    for field in CONFIG_FIELDS:
        if field.name in _OF_THE_RUN:
            continue
        values = [NOT_GIVEN if config is None else _shown(_value(config, field.name)) for config in dumped]
        if len(set(values)) > 1:
            found.append({"label": _label(field), "name": field.name, "values": values})
    return found


def _label(field: Field) -> str:
    return f"{field.group}: {field.label}" if field.group else field.label


def _value(config: dict[str, Any], name: str) -> Any:
    value: Any = config
    for part in name.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _shown(value: Any) -> str:
    if value is None or value in ("", [], {}):
        return NOT_GIVEN
    if isinstance(value, bool):
        return "on" if value else "off"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def config_of(run: Run) -> Config | None:
    """A run's settings; None where they cannot be read."""
    try:
        return run.config()
    except (UserError, OSError):
        return None

"""What a run was made of: another run's settings, and which of them were changed. No Gradio."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from trainer.errors import UserError
from trainer.runs.store import Run, RunInfo, Workspace
from ui.comparison import config_of, differences


def origin_of(workspace: Workspace, info: RunInfo) -> dict[str, Any] | None:
    """The run whose settings a run was made of, as the script takes it; None for a run that was made of none.

    ``differences`` have a label, the setting's name, and its value before and now; they are empty where ``there`` is
    false, as the other run has been deleted.
    """
    if info.changed_from is None:
        return None
    try:
        origin = workspace.run(info.changed_from)
        name = origin.read().name
    except UserError:
        return {"run": info.changed_from, "name": info.changed_from, "there": False, "differences": []}
    run = workspace.run(info.id)
    found = _differences(origin, _stamp(origin), run, _stamp(run))
    return {"run": origin.id, "name": name, "there": True, "differences": found}


def _stamp(run: Run) -> int:
    return run.config_path.stat().st_mtime_ns if run.config_path.is_file() else 0


@lru_cache(maxsize=32)
def _differences(origin: Run, origin_stamp: int, run: Run, run_stamp: int) -> list[dict[str, Any]]:
    """Read once as long as neither config changes: an open page asks about once a second."""
    found = differences([config_of(origin), config_of(run)])
    return [
        {"label": each["label"], "name": each["name"], "before": each["values"][0], "now": each["values"][1]}
        for each in found
    ]

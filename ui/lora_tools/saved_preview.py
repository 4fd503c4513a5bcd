"""LoRAs merged as Save would merge them, to be drawn with: what a mode loses is seen before it is kept.

The merge runs as a job and goes into the cache; nothing else is written. No gradio in here.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from trainer.errors import Problem, UserError
from trainer.jobs import Job, start_job
from trainer.runs.store import Workspace
from ui.lora_tools.merge_orders import Merge, merge_command, merge_problems

_KEPT = 8
_UNNAMED = Path("preview")
_NO_RESULT = {
    "code": "merge.preview",
    "message": "The merge for the preview ended without a result.",
    "hint": "Move a slider to try again.",
    "field": "",
}


class SavedPreview:
    """Makes the file of the newest position that was asked for."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._wanted = ""
        self._made = ""
        self._job: Job | None = None

    def lora(self, merge: Merge) -> Path | None:
        """The merged LoRA; None while it is not there yet: to be asked again soon.

        A position is merged when it is asked for twice in a row, so that a moving slider does not start a process for
        each of its places. Raises UserError when the merge is not possible.
        """
        problems = merge_problems(merge)
        if problems:
            raise UserError.many(problems)
        out = self._path(merge)
        if out.is_file():
            return out
        running = self._job is not None and self._job.read().state == "running"
        if out.stem != self._wanted:
            self._wanted = out.stem
            if self._job is not None and running:
                self._job.cancel()
        elif not running and self._made == out.stem:
            self._made = ""  # the next time it is tried again
            raise self._failure()
        elif not running:
            self._start(merge, out)
        return None

    def _start(self, merge: Merge, out: Path) -> None:
        out.parent.mkdir(parents=True, exist_ok=True)
        old = sorted(out.parent.glob("*.safetensors"), key=lambda path: path.stat().st_mtime_ns)
        for path in old[: -_KEPT + 1]:
            path.unlink(missing_ok=True)
        self._job = start_job(self._workspace, merge_command(merge, out), "Merge for the preview")
        self._made = out.stem

    def _path(self, merge: Merge) -> Path:
        """A name for what comes out, which follows from all that goes in."""
        command = merge_command(merge.model_copy(update={"replace": False}), _UNNAMED)
        stamps = [Path(use.path).stat().st_mtime_ns for use in merge.loras]
        key = hashlib.sha256(json.dumps([command, stamps]).encode()).hexdigest()[:24]
        return self._workspace.cache_dir / "merge-previews" / f"{key}.safetensors"

    def _failure(self) -> UserError:
        info = None if self._job is None else self._job.read()
        found = (info.error if info is not None else None) or [_NO_RESULT]
        return UserError.many([Problem(**{name: str(each.get(name) or "") for name in _NO_RESULT}) for each in found])

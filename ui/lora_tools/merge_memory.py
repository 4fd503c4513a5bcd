"""What the Merge tab keeps between page loads, in ``WORKSPACE/last_combine.json``. No gradio in here."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trainer.files import read_json, write_json
from trainer.lora.merge_settings import DEFAULT_DENSITY
from trainer.pictures import PictureSettings
from trainer.runs.store import Workspace
from trainer.studio import MOST_PROMPTS
from ui.lora_choices import RowUse
from ui.lora_tools.merge_orders import MergeHow

EXAMPLE_PROMPT = "a red star on a blue background"
FIRST_LOOK: dict[str, Any] = {"model": "demo", "seed": 42, "sampler": "dpmpp_2m", "steps": 12, "guidance": 4}
FIRST_NAME = "my-merge"
FIRST_RANK = 16


class LastMerge(BaseModel):
    """The form as it was last used, and the preview that was asked for."""

    model_config = ConfigDict(extra="ignore")

    settings: PictureSettings = Field(default_factory=lambda: PictureSettings.model_validate(FIRST_LOOK))
    """How the preview is drawn, with which LoRAs."""
    prompts: list[str] = Field(default=[EXAMPLE_PROMPT], min_length=1, max_length=MOST_PROMPTS)
    how: MergeHow = Field(default_factory=lambda: MergeHow(rank=FIRST_RANK, density=DEFAULT_DENSITY, name=FIRST_NAME))
    as_saved: bool = False
    request: str = ""
    """Of the preview; empty for none."""
    sum: str = ""
    """What the preview shows, in words."""

    @property
    def uses(self) -> list[RowUse]:
        """The LoRAs as rows."""
        return [RowUse(use.path, use.weight, use.parts) for use in self.settings.loras]


class MergeMemory:
    """Keeps what was last used; files are looked for when they are."""

    def __init__(self, workspace: Workspace) -> None:
        self._file = workspace.dir / "last_combine.json"
        self._lock = threading.Lock()

    def last(self) -> LastMerge | None:
        """The form as it was last used; None where it never was, or the file is damaged."""
        try:
            return LastMerge.model_validate(read_json(self._file))
        except (OSError, ValueError):
            return None

    def keep(self, uses: Sequence[RowUse], look: Mapping[str, Any], **rest: Any) -> None:
        """Remember the LoRAs, settings of the preview, and other parts of ``LastMerge``; what is left out stays.

        What is half typed, and no settings yet, is not kept.
        """
        loras = [{"path": use.file, "weight": use.weight, "parts": use.parts} for use in uses]
        with self._lock:
            before = self.last() or LastMerge()
            settings = {**before.settings.model_dump(), **look, "loras": loras}
            try:
                now = LastMerge.model_validate({**before.model_dump(), **rest, "settings": settings})
            except ValidationError:
                return
            if now != before:
                write_json(self._file, now.model_dump(), durable=False)

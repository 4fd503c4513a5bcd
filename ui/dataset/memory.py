"""What the Dataset tab keeps from one visit to the next. No Gradio."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trainer.config import DatasetSettings
from trainer.errors import UserError
from trainer.files import read_json, write_json

_LEAST_PX, _MOST_PX = 64, 8192
_KEPT_TRIGGERS = 200


class DatasetMemory:
    """One small file. What cannot be read in it was never kept.

    Args:
        file: where it lies.
    """

    def __init__(self, file: Path) -> None:
        self._file = file

    @property
    def folder(self) -> str:
        """The dataset that was open last; empty for none."""
        folder = self._read().get("folder")
        return folder if isinstance(folder, str) else ""

    def opened(self, folder: Path) -> None:
        """Keep which dataset is open."""
        self._keep(folder=str(folder))

    @property
    def resolution(self) -> int:
        """Pixels a side that the pictures are meant to be trained at: what was said last, whatever the folder."""
        try:
            return checked_resolution(self._read().get("resolution"))
        except UserError:
            return int(DatasetSettings.model_fields["resolution"].default)

    def train_at(self, resolution: Any) -> None:
        """Keep at which resolution the pictures are meant to be trained. Raises UserError for none."""
        self._keep(resolution=checked_resolution(resolution))

    def trigger(self, folder: Path) -> str:
        """The trigger word that captions of this dataset were last asked for with; empty for none."""
        trigger = self._triggers().get(str(folder))
        return trigger if isinstance(trigger, str) else ""

    def captioned_with(self, folder: Path, trigger: str) -> None:
        """Keep a dataset's trigger word. Each has its own: another one's must never get into its captions."""
        others = {name: word for name, word in self._triggers().items() if name != str(folder)}
        kept = list(({str(folder): trigger} | others).items())[:_KEPT_TRIGGERS]
        self._keep(triggers=dict(kept))

    def _triggers(self) -> dict[str, Any]:
        triggers = self._read().get("triggers")
        return triggers if isinstance(triggers, dict) else {}

    def _keep(self, **values: Any) -> None:
        write_json(self._file, self._read() | values)

    def _read(self) -> dict[str, Any]:
        try:
            kept = read_json(self._file)
        except (OSError, ValueError):
            return {}
        return kept if isinstance(kept, dict) else {}


def checked_resolution(value: Any) -> int:
    """A resolution that somebody typed. Raises UserError when no model trains at it."""
    if not isinstance(value, int | float) or value != value // 1 or not _LEAST_PX <= value <= _MOST_PX:
        message = f"The resolution {value} is not a whole number from {_LEAST_PX} to {_MOST_PX}."
        raise UserError("dataset.resolution", message, "512 is usual for SD 1.5, 1024 for SDXL.", "resolution")
    return int(value)

"""How long pictures took on this machine, to say how long more of them will take.

``WORKSPACE/pace.json`` keeps, for each model, the seconds per step and megapixel of its newest pictures. Encoding and
decoding are in them too: what is asked for next mostly resembles what was asked for before.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from trainer.files import read_json, write_json
from trainer.pictures import PictureSettings
from trainer.runs.store import Workspace

KEPT_PICTURES = 9
KEPT_MODELS = 20
_USUAL_SIDE_PX = 512
"""For settings that leave the size to the model, where it was never measured."""


class PicturePace:
    """The measured times of a workspace."""

    def __init__(self, workspace: Workspace) -> None:
        self._path: Path = workspace.dir / "pace.json"

    def note(self, settings: PictureSettings, size: tuple[int, int], seconds: float) -> None:
        """Keep how long a picture took that was drawn at ``size`` pixels at first."""
        known = self._read()
        mine = known.pop(settings.model, {"rates": [], "side": 0})
        rate = seconds / (_steps_at_first_size(settings) * size[0] * size[1] / 1e6)
        if settings.width is None:
            mine["side"] = max(size)
        known[settings.model] = {**mine, "rates": [*mine["rates"], rate][-KEPT_PICTURES:]}
        write_json(self._path, dict(list(known.items())[-KEPT_MODELS:]), durable=False)

    def expected_s(self, pictures: Iterable[PictureSettings]) -> float | None:
        """Seconds that these pictures will take; None where a model has drawn none yet."""
        known = self._read()
        rates = {model: statistics.median(each["rates"]) for model, each in known.items()}
        total = 0.0
        for settings in pictures:
            if settings.model not in rates:
                return None
            side = known[settings.model]["side"] or _USUAL_SIDE_PX
            pixels = (settings.width or side) * (settings.height or side)
            total += rates[settings.model] * _steps_at_first_size(settings) * pixels / 1e6
        return total

    def _read(self) -> dict[str, Any]:
        try:
            return dict(read_json(self._path))
        except (OSError, ValueError):
            return {}


def _steps_at_first_size(settings: PictureSettings) -> float:
    """The steps of all passes, those of a second one for its larger size; at least one."""
    if settings.init_image:
        return max(1.0, settings.steps * settings.strength)
    second = (settings.hires_steps or settings.steps) * settings.hires_strength * settings.hires_scale**2
    return settings.steps + (second if settings.hires_scale > 1 else 0.0)

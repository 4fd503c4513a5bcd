"""How long pictures will take, from how long others took."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainer.picture_pace import KEPT_PICTURES, PicturePace
from trainer.pictures import PictureSettings
from trainer.runs.store import Workspace


def test_time_follows_steps_and_pixels(tmp_path: Path) -> None:
    pace = PicturePace(Workspace(tmp_path))
    small = PictureSettings(steps=10, width=128, height=128)
    assert pace.expected_s([small]) is None
    pace.note(small, (128, 128), 2.0)
    assert pace.expected_s([small]) == pytest.approx(2.0)
    large = small.model_copy(update={"width": 256, "height": 256, "steps": 20})
    assert pace.expected_s([large, small]) == pytest.approx(2.0 * 8 + 2.0)
    assert pace.expected_s([small, small.model_copy(update={"model": "other"})]) is None


def test_the_size_that_is_left_to_the_model_and_one_slow_picture(tmp_path: Path) -> None:
    pace = PicturePace(Workspace(tmp_path))
    own_size = PictureSettings(steps=10)
    for seconds in [1.0] * 4 + [60.0]:
        pace.note(own_size, (128, 128), seconds)
    assert pace.expected_s([own_size] * 3) == pytest.approx(3.0)
    for _ in range(KEPT_PICTURES):
        pace.note(own_size, (128, 128), 4.0)
    assert pace.expected_s([own_size]) == pytest.approx(4.0)
    (tmp_path / "pace.json").write_text("broken")
    assert pace.expected_s([own_size]) is None

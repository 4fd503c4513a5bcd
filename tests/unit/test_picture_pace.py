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


def test_second_passes_take_longer_and_pictures_to_start_from_less(tmp_path: Path) -> None:
    pace = PicturePace(Workspace(tmp_path))
    plain = PictureSettings(steps=10, width=128, height=128)
    larger = plain.model_copy(update={"hires_scale": 2.0, "hires_steps": 5, "hires_strength": 0.4})
    pace.note(larger, (128, 128), 9.0)  # 2 of 5 steps at four times the size
    assert pace.expected_s([plain]) == pytest.approx(5.0)
    started = plain.model_copy(update={"init_image": "a.png", "strength": 0.3})
    assert pace.expected_s([started]) == pytest.approx(1.5)
    assert pace.expected_s([started.model_copy(update={"strength": 0})]) == pytest.approx(0.5)


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

"""Where each picture comes: boxes by hand, and those that are held back."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.dataset_samples import config_for, write_picture, write_pictures
from trainer.data.epoch import lay_out
from trainer.plan_pictures import placed_pictures


def test_boxes_by_hand(tmp_path: Path) -> None:
    write_picture(tmp_path / "in" / "wide.png", 256, 128)
    write_picture(tmp_path / "in" / "square.png", 128, 128)
    config = config_for(tmp_path / "in", dataset={"resolution": 64, "buckets": {"enabled": False}})
    square, wide = sorted(placed_pictures(lay_out(config)), key=lambda each: each.width)
    assert square.box == (0, 0, 1, 1) and square.cropped_share == 0 and square.bucket == (64, 64)
    assert wide.box == (0.25, 0, 0.75, 1) and wide.cropped_share == pytest.approx(0.5)
    assert Path(wide.path).name == "wide.png" and (wide.width, wide.height) == (256, 128)


def test_repeats_regularization_and_those_held_back(tmp_path: Path) -> None:
    write_pictures(tmp_path / "in" / "3_x", [(64, 64)] * 4)
    write_pictures(tmp_path / "prior", [(64, 64)] * 2)
    sources = [{"path": str(tmp_path / "in")}, {"path": str(tmp_path / "prior"), "is_regularization": True}]
    config = config_for(dataset={"sources": sources}, validation={"split": 0.25})
    placed = placed_pictures(lay_out(config))
    assert [each.repeats for each in placed if not each.is_regularization] == [3, 3, 3, 0]
    assert sum(each.repeats for each in placed if each.is_regularization) == 9

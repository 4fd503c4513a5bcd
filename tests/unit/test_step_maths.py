"""Steps counted from file names, against hand-made counts."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainer.config import Config
from ui import step_maths
from ui.step_maths import count_pictures
from ui.step_maths import step_maths as maths_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """3 pictures, 2 more in a folder of 10 repeats, and files that are no pictures."""
    names = ["a.png", "b.JPG", "c.webp", "a.txt", ".hidden.png", "10_cat/d.png", "10_cat/deep/e.png"]
    for name in names:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path


def config(folder: Path, *, repeats: int = 1, resolution: object = 512, **train: object) -> Config:
    sources = [{"path": str(folder), "repeats": repeats}]
    return Config.model_validate({"dataset": {"sources": sources, "resolution": resolution}, "train": train})


def test_counting(folder: Path) -> None:
    assert count_pictures(str(folder)) == (5, 3 + 2 * 10)
    assert count_pictures(str(folder / "missing")) == (0, 0)


def test_steps_of_an_epoch(folder: Path) -> None:
    maths = maths_of(config(folder, repeats=2, batch_size=4, max_steps=24))
    assert maths is not None
    assert (maths.pictures, maths.seen, maths.per_step, maths.steps_per_epoch) == (5, 46, 4, 12)
    assert (maths.max_steps, maths.epochs) == (24, 2)
    assert maths.sentence() == "5 pictures, 46 with repeats / 4 a step = about 12 steps an epoch"


def test_epochs_win_over_steps(folder: Path) -> None:
    maths = maths_of(config(folder, batch_size=2, gradient_accumulation_steps=2, epochs=3, max_steps=1))
    assert maths is not None and (maths.steps_per_epoch, maths.max_steps) == (6, 18)


def test_each_resolution_is_seen(folder: Path) -> None:
    maths = maths_of(config(folder, resolution=[256, 512]))
    assert maths is not None and maths.seen == 46


def test_nothing_to_count(folder: Path) -> None:
    assert maths_of(Config()) is None
    assert maths_of(config(folder / "missing")) is None


def test_new_pictures_are_seen_soon(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(step_maths.time, "monotonic", lambda: now[0])
    before = count_pictures(str(folder))[0]
    (folder / "new.png").touch()
    now[0] += step_maths._FRESH_SECONDS
    assert count_pictures(str(folder))[0] == before + 1

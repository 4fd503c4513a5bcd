"""Fixes of the plan's warnings: each one that is offered takes its warning away, and can be taken back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.dataset_samples import config_for, write_picture, write_pictures
from trainer.config import Config
from trainer.errors import UserError
from trainer.plan_fixes import _FINDERS, changed, values_at
from trainer.planner import plan
from trainer.runs.store import Workspace


def squares(folder: Path, count: int = 4) -> None:
    write_pictures(folder, [(64, 64)] * count, "a dog, {}".format)


def strips(folder: Path) -> None:
    write_pictures(folder, [(90, 66)] * 2, "a dog, {}".format)


def small_ones(folder: Path) -> None:
    write_pictures(folder, [(512, 512), (320, 320)], "a dog, {}".format)


def mute(folder: Path) -> None:
    squares(folder)
    write_picture(folder / "mute.png")


def wordy(folder: Path) -> None:
    write_picture(folder / "long.png", caption="word " * 90)


def one_of_each(folder: Path) -> None:
    write_pictures(folder, [(64, 64)] * 4 + [(128, 64)] * 2, "a dog, {}".format)


CASES: dict[str, tuple[Callable[[Path], None], dict[str, Any]]] = {
    "dataset.heavy_crop": (strips, {"dataset": {"resolution": 64, "buckets": {"enabled": False}}}),
    "dataset.enlarged": (small_ones, {"dataset": {"resolution": 512, "buckets": {"upscale": True}}}),
    "dataset.small": (small_ones, {"dataset": {"resolution": 512}}),
    "dataset.no_caption": (mute, {"output": {"trigger": "dog"}}),
    "dataset.long_caption": (wordy, {}),
    "output.trigger_unused": (squares, {"output": {"trigger": "sks"}, "dataset": {"captions": {"prefix": "photo"}}}),
    "dataset.repeats_folder": (squares, {}),
    "dataset.thin_buckets": (one_of_each, {"train": {"batch_size": 4}, "dataset": {"resolution": 128}}),
    "train.less_than_an_epoch": (squares, {"train": {"max_steps": 1, "gradient_accumulation_steps": 3}}),
    "train.warmup": (squares, {"train": {"max_steps": 40, "lr_warmup_steps": 40}}),
    "validation.nothing": (lambda folder: squares(folder, 1), {"validation": {"split": 0.5}}),
    "train.nothing_learns": (squares, {"train": {"learning_rate": 0}}),
    "optimizer.own_rate": (squares, {"train": {"optimizer": "prodigy"}}),
}


def test_every_fix_is_tried_here() -> None:
    assert set(CASES) == set(_FINDERS)


@pytest.mark.parametrize("code", CASES)
def test_a_fix_takes_its_warning_away(tmp_path: Path, code: str) -> None:
    make, sections = CASES[code]
    folder = tmp_path / "10_dog"
    make(folder)
    config = config_for(folder, **sections)
    (warning,) = [each for each in plan(config).warnings if each.code == code]
    assert warning.fixes
    for fix in warning.fixes:
        mended = changed(config, fix.changes)
        assert code not in {each.code for each in plan(mended).warnings}, fix
        assert changed(mended, values_at(config, fix.changes)) == config
        assert fix.label


def test_the_effective_batch_is_kept(tmp_path: Path) -> None:
    one_of_each(tmp_path)
    config = config_for(
        tmp_path, train={"batch_size": 4, "gradient_accumulation_steps": 3}, dataset={"resolution": 128}
    )
    (warning,) = [each for each in plan(config).warnings if each.code == "dataset.thin_buckets"]
    assert warning.fixes[0].changes == {"train.batch_size": 2, "train.gradient_accumulation_steps": 6}


def test_nothing_is_offered_that_would_not_help(tmp_path: Path) -> None:
    write_picture(tmp_path / "sliver.png", 700, 20, caption="a dog")
    write_picture(tmp_path / "mute.png")
    config = config_for(tmp_path, dataset={"resolution": 64, "buckets": {"enabled": False}})
    fixes = {each.code: each.fixes for each in plan(config).warnings}
    assert fixes["dataset.no_caption"] == []  # without a trigger word there is nothing to write
    for fix in fixes["dataset.heavy_crop"]:
        assert "dataset.heavy_crop" not in {each.code for each in plan(changed(config, fix.changes)).warnings}


def test_changes_that_a_config_does_not_allow_are_told(tmp_path: Path) -> None:
    config = Config()
    with pytest.raises(UserError, match=r"train\.batch_size"):
        changed(config, {"train.batch_size": 0})
    assert changed(config, {}) == config


def test_a_full_disk_is_told_with_what_would_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    squares(tmp_path / "in")
    config = config_for(tmp_path / "in", lora={"rank": 64}, output={"keep_last": 100})
    workspace = Workspace(tmp_path / "workspace")
    needed = plan(config, workspace).estimate.disk_bytes
    monkeypatch.setattr("trainer.plan_disk.free_disk_bytes", lambda folder: 2**29 + needed // 2)
    (warning,) = [each for each in plan(config, workspace).warnings if each.code == "disk.too_little"]
    assert [fix.changes for fix in warning.fixes] == [{"output.keep_last": 1}]
    mended = changed(config, warning.fixes[0].changes)
    assert "disk.too_little" not in {each.code for each in plan(mended, workspace).warnings}
